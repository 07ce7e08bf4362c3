//! What is published, and the promises.

/// What the checks know of an instance.
#[derive(Debug, Clone)]
pub struct Known {
    pub ttl: u64,
    pub died: Option<u64>,
    pub published: bool,
    /// When each accepted beat was sent: the last one.
    pub accepted: Option<u64>,
}

/// The state of the checks.
#[derive(Debug, Default)]
pub struct Check {
    pub instances: Vec<Known>,
    /// Whether a replica of an old version is or was part of the schedule.
    pub mixed: bool,
    pub prunes: u64,
    pub violation: Option<String>,
}

/// The longest time for which a beat may be under way to the leader without a hanging stream: a gateway or a replica
/// that is suspended holds it.
const UNDER_WAY: u64 = 40_000_000;

impl Check {
    /// An instance is removed by a decision that was made at `decided`.
    pub fn pruned(&mut self, instance: usize, decided: u64, now: u64, by: &str) {
        self.prunes += 1;
        let known = &mut self.instances[instance];
        known.published = false;
        let within = known.accepted.filter(|sent| decided < sent + known.ttl);
        if let Some(sent) = within {
            self.violate(now, format!(
                "P1: {by} pruned instance {instance} {} ms after an accepted beat, with a ttl of {} ms",
                (decided - sent) / 1000, self.instances[instance].ttl / 1000
            ));
        } else if self.instances[instance].died.is_none() && !self.mixed {
            self.violate(now, format!("L3: {by} pruned instance {instance}, which lives"));
        }
    }

    pub fn published(&mut self, instance: usize, now: u64) {
        self.instances[instance].published = true;
        if self.instances[instance].died.is_some_and(|died| now > died + UNDER_WAY) {
            self.violate(now, format!("instance {instance} was revived long after its death"));
        }
    }

    /// Whether the dead are gone and the living are published.
    pub fn is_settled(&self) -> bool {
        self.instances.iter().all(|known| known.published != known.died.is_some())
    }

    /// At the end, long after the last fault.
    pub fn at_the_end(&mut self, now: u64) {
        for n in 0..self.instances.len() {
            let Known { died, published, .. } = self.instances[n];
            if published && died.is_some() {
                self.violate(now, format!("P2: instance {n} is dead and still published"));
            } else if !published && died.is_none() && !self.mixed {
                self.violate(now, format!("instance {n} lives and is not published"));
            }
        }
    }

    pub fn violate(&mut self, now: u64, what: String) {
        self.violation.get_or_insert_with(|| format!("at {} ms: {what}", now / 1000));
    }
}
