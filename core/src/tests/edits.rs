//! Every field that can be edited is edited, one edit after another and all at once. A living instance stays
//! published unless an edit itself excludes it (P1, L8).

use std::time::Duration;

use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};

use super::{
    ttl::{Client, clients, paces},
    *,
};
use crate::vocabulary::{address::Named, pace::Pace};

/// An edit of a part of a registration, or of the operator's settings.
#[derive(Debug, Clone)]
enum Edit {
    Pace(Pace),
    /// Another target port: its number, or the name of a port of the Pod.
    Target(Value),
    /// Another port name.
    PortName(&'static str),
    /// The labels that Pods must have. With `None`, no Pod may join.
    Selector(Option<&'static [(&'static str, &'static str)]>),
    /// The outside range. This edit needs a restart.
    Range(&'static str),
    MinReady(u32),
    DryRun(Option<&'static str>),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let selectors: [Option<&[_]>; 4] =
        [None, Some(&[]), Some(&[("app", "greeter")]), Some(&[("app", "other")])];
    prop_oneof![
        paces().prop_map(Edit::Pace),
        select(vec![json!(8080), json!(9090), json!("web")]).prop_map(Edit::Target),
        select(vec!["http", "grpc"]).prop_map(Edit::PortName),
        select(selectors.to_vec()).prop_map(Edit::Selector),
        select(vec!["192.0.2.0/24", "192.0.2.1/32", "198.51.100.0/24"]).prop_map(Edit::Range),
        (0..4_u32).prop_map(Edit::MinReady),
        select(vec![None, Some("true"), Some("false")]).prop_map(Edit::DryRun),
    ]
}

/// Edits of all kinds, one or several at once, in any order.
fn many() -> impl Strategy<Value = Vec<Edit>> {
    prop_oneof![
        any_edit().prop_map(|edit| vec![edit]),
        vec(any_edit(), 2..12),
        subsequence((0..7_usize).collect::<Vec<_>>(), 2..=7).prop_flat_map(|kinds| {
            let count = kinds.len();
            vec(any_edit(), count).prop_shuffle()
        }),
    ]
}

/// An instance that beats.
struct Instance {
    name: &'static str,
    /// Its address. An instance in a Pod has the address of the Pod.
    address: &'static str,
    in_pod: bool,
    client: Client,
    /// Whether its Lease carries the ttl that the instance knows.
    says: bool,
    knows: Pace,
    beat: Option<MonotonicTime>,
    /// Whether it must be published: no edit excludes it, and it was published or has beaten since.
    counts: bool,
}

struct Play {
    world: World,
    index: Index,
    instances: [Instance; 2],
    spec: Value,
    dry_run: Option<&'static str>,
    range: &'static str,
    version: u64,
}

impl Play {
    fn new(clients: [(Client, bool); 2], first: Pace) -> Self {
        let [outside, in_pod] = clients;
        let instance = |name, address, in_pod, (client, says)| Instance {
            name,
            address,
            in_pod,
            client,
            says,
            knows: first,
            beat: None,
            counts: false,
        };
        let spec = json!({
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            "podSelector": { "matchLabels": { "app": "greeter" } },
        });
        let mut play = Self {
            world: World::new().pod("web-1", ready_pod("web-1", &["10.0.0.1"])),
            index: index(),
            instances: [
                instance("vm-1", "192.0.2.1", false, outside),
                instance("web-1", "10.0.0.1", true, in_pod),
            ],
            spec,
            dry_run: None,
            range: "192.0.2.0/24",
            version: 0,
        };
        play.apply(&[Edit::Pace(first)], at(0));
        play.world.ttl = TtlHistory::new(first.ttl);
        play
    }

    /// Makes all these edits at once.
    fn apply(&mut self, edits: &[Edit], now: MonotonicTime) {
        let mut restart = false;
        for edit in edits {
            let port = &mut self.spec["ports"][0];
            match edit {
                Edit::Pace(Pace { ttl, interval }) => {
                    self.spec["ttl"] = json!(format!("{}s", ttl.as_secs()));
                    self.spec["interval"] = json!(format!("{}s", interval.as_secs()));
                }
                Edit::Target(target) => port["targetPort"] = target.clone(),
                Edit::PortName(name) => port["name"] = json!(name),
                Edit::Selector(labels) => {
                    self.spec["podSelector"] = labels.map_or(json!(null), |labels| {
                        let labels: HashMap<_, _> = labels.iter().copied().collect();
                        json!({ "matchLabels": labels })
                    });
                }
                Edit::Range(range) => {
                    self.range = range;
                    restart = true;
                }
                Edit::MinReady(number) => self.spec["protection"] = json!({ "minReady": number }),
                Edit::DryRun(value) => self.dry_run = *value,
            }
        }
        let mut object = object(self.spec.clone());
        object.metadata.annotations =
            self.dry_run.map(|value| [("beatkeeper.dev/dry-run".into(), value.into())].into());
        self.world.registration = Registration::validate(&object);
        self.world.ttl.set(self.world.registration.ttl, now);
        if restart {
            self.restart(now);
        }
        for n in 0..self.instances.len() {
            let is_published = self.is_published(&self.instances[n]);
            let stays = !self.excludes(&self.instances[n]) && (is_published || !restart);
            self.instances[n].counts &= stays;
        }
    }

    fn is_published(&self, instance: &Instance) -> bool {
        let address: IpAddr = instance.address.parse().expect("an address");
        self.world.published.contains(&address)
    }

    /// Whether the selector, the outside range or a named target port excludes the instance now.
    fn excludes(&self, instance: &Instance) -> bool {
        if instance.in_pod {
            let selector = &self.spec["podSelector"];
            return selector.is_null() || selector["matchLabels"]["app"] == "other";
        }
        let named = self.spec["ports"][0]["targetPort"].is_string();
        named || self.range == "198.51.100.0/24"
    }

    /// Restarts the operator. The new process knows only what is in the Leases, the slices and the status.
    fn restart(&mut self, now: MonotonicTime) {
        let pace = self.world.registration.pace();
        let records = self.index.records_of(&key("greeter"));
        let awaits = |it: &Record| self.world.ttl.awaits(it, pace.interval).is_some();
        let told = records.iter().any(awaits).then(|| self.world.ttl.longest());
        self.world.ttl = TtlHistory::after(told, pace.ttl, now);
        self.world.ranges =
            [format!("shop={}", self.range).parse().expect("a range")].into_iter().collect();
        self.index = Index::default();
        self.index.begin_list();
        for n in 0..self.instances.len() {
            if self.instances[n].beat.is_some() {
                let lease = self.lease(n);
                self.index.observe("shop", lease, now);
            }
        }
        self.index.end_list();
    }

    fn lease(&mut self, n: usize) -> Heartbeat {
        self.version += 1;
        let Instance { name, address, in_pod, says, knows, beat: last, .. } = &self.instances[n];
        let renewed = last.map_or(0, |last| last.since(at(0)).as_millis());
        let renewed = i64::try_from(renewed).expect("small");
        let mut lease = match in_pod {
            true => pod_beat(name, renewed, self.version),
            false => beat(name, renewed, self.version),
        };
        lease.content.duration = says.then_some(knows.ttl);
        if !in_pod {
            lease.content.addresses = vec![Named::from(*address)];
        }
        lease
    }

    /// Does what the clients do at a moment.
    fn live(&mut self, now: MonotonicTime) {
        for n in 0..self.instances.len() {
            let instance = &mut self.instances[n];
            if let Client::Follows { every } = instance.client
                && now.since(at(0)).as_millis().is_multiple_of(u128::from(every) * 1000)
            {
                instance.knows = self.world.registration.pace();
            }
            if instance.beat.is_none_or(|beat| now >= beat + instance.knows.interval) {
                instance.beat = Some(now);
                let lease = self.lease(n);
                self.index.observe("shop", lease, now);
                // In a dry run a beat publishes nothing, so only an instance that is already published can be
                // lost.
                let may_join = !self.world.registration.dry_run;
                let instance = &self.instances[n];
                let counts = !self.excludes(instance) && (may_join || self.is_published(instance));
                self.instances[n].counts = counts;
            }
        }
    }

    /// Does what the operator does at a moment. Fails if an instance is forgotten, doubted, or wrongly
    /// unpublished.
    fn decide(&mut self, now: MonotonicTime) -> Result<(), String> {
        let verdicts = self.world.decide(&self.index, now);
        for instance in &self.instances {
            let told = verdicts.iter().find(|verdict| &*verdict.instance == instance.name);
            let Some(verdict) = told else { return Err(format!("{} is forgotten", instance.name)) };
            let doubted = verdict.lease.as_ref().is_some_and(|lease| lease.suspect.is_some());
            if doubted {
                return Err(format!("{} is doubted: {}", instance.name, line(verdict)));
            }
            if instance.counts && !verdict.is_published() {
                return Err(format!("{} is taken out: {}", instance.name, line(verdict)));
            }
        }
        let _ = commit(&mut self.index, &verdicts, now);
        if !self.world.registration.dry_run {
            let published = verdicts.iter().filter(|verdict| verdict.is_published());
            let places = published.flat_map(|verdict| &verdict.placement);
            self.world.published = places.flat_map(|it| &it.addresses).copied().collect();
        }
        Ok(())
    }

    /// Plays from second `from` to second `to`.
    fn play(&mut self, from: u64, to: u64) -> Result<(), String> {
        for quarter in from * 4..to * 4 {
            let now = at(quarter * 250);
            self.live(now);
            self.decide(now).map_err(|error| format!("at {now:?}: {error}"))?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_edit_takes_a_living_instance_out_that_it_does_not_itself_exclude(
        of_clients in (clients(), any::<bool>(), clients(), any::<bool>()),
        first in paces(),
        rounds in vec((many(), 1..60_u64), 1..8),
    ) {
        let (outside, outside_says, in_pod, pod_says) = of_clients;
        let mut play = Play::new([(outside, outside_says), (in_pod, pod_says)], first);
        let mut now = 60;
        prop_assert_eq!(play.play(0, now), Ok(()));
        for (edits, lasts) in rounds {
            play.apply(&edits, at(now * 1000));
            prop_assert_eq!(play.decide(at(now * 1000)), Ok(()), "{:?}", edits);
            prop_assert_eq!(play.play(now, now + lasts), Ok(()), "{:?}", edits);
            now += lasts;
        }
        let longest = Duration::from_secs(300).as_secs();
        prop_assert_eq!(play.play(now, now + longest), Ok(()), "the last edits");
    }
}
