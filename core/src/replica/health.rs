//! The health of the operator itself: the answers of `/livez` and `/readyz`.
//!
//! The shell reports events: a tick of the timer, an answer of the API server, a list that was read to its end. A
//! [`Report`] describes the health at one moment.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use crate::vocabulary::monotonic_time::MonotonicTime;

/// A timer that has not ticked for longer than this is stuck. It should tick every second.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);
/// If the API server has not answered for longer than this, it counts as unreachable.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(60);

/// What a failing check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// The process should be restarted: `/livez` and `/readyz` fail.
    Life,
    /// The process is not ready yet: `/readyz` fails.
    Readiness,
}

/// What a check has found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ailment {
    /// The timer stands still.
    #[error("the timer has not ticked for {} s", .0.as_secs())]
    TimerStuck(Duration),
    /// These caches have not been read to their end.
    #[error("not read yet: {}", .0.join(", "))]
    CachesUnread(Vec<String>),
    /// The API server has not answered since the start.
    #[error("it has not answered yet")]
    NeverAnswered,
    /// The API server has stopped answering.
    #[error("it has not answered for {} s", .0.as_secs())]
    Unanswered(Duration),
    /// A watch does not deliver.
    #[error("the watch of {kind} has not brought for {} s what was written", .silent.as_secs())]
    WatchSilent {
        /// The plural of the kind.
        kind: &'static str,
        /// For how long.
        silent: Duration,
    },
}

/// The result of a check.
pub type Finding = Result<(), Ailment>;

/// The known health of the operator.
#[derive(Debug, Default)]
pub struct Health {
    ticked: MonotonicTime,
    answered: Option<MonotonicTime>,
    /// The caches that must be read once before anything can be decided, and whether they have been read.
    caches: BTreeMap<String, bool>,
    further: BTreeMap<&'static str, (Concern, Finding)>,
}

impl Health {
    /// The health at the start of the process.
    pub fn new(now: MonotonicTime) -> Self {
        Self { ticked: now, ..Self::default() }
    }

    /// Records that the timer has ticked.
    pub fn ticked(&mut self, now: MonotonicTime) {
        self.ticked = self.ticked.max(now);
    }

    /// Records that the API server has answered a call, whatever the answer, or has sent an event of a watch.
    pub fn api_answered(&mut self, now: MonotonicTime) {
        self.answered = self.answered.max(Some(now));
    }

    /// Adds a cache without which the operator is not ready, until [`Self::cache_read`] is called.
    pub fn await_cache(&mut self, cache: &str) {
        self.caches.insert(cache.to_owned(), false);
    }

    /// Records that a cache was read to its end.
    pub fn cache_read(&mut self, cache: &str) {
        if let Some(read) = self.caches.get_mut(cache) {
            *read = true;
        }
    }

    /// Records that a cache was read or that the API server refuses it, perhaps forever. If readiness waited for a
    /// refused cache, everything that waits for this process would be blocked, and nothing would be corrected.
    pub fn cache_answered(&mut self, cache: &str) {
        self.cache_read(cache);
    }

    /// Adds a check or updates its finding. A replica that stands by is as ready as the leader, so not leading is no
    /// finding.
    pub fn note(&mut self, check: &'static str, concern: Concern, finding: Finding) {
        self.further.insert(check, (concern, finding));
    }

    /// The answer of `/livez`.
    pub fn live(&self, now: MonotonicTime) -> Report {
        self.report("livez", now, |concern| concern == Concern::Life)
    }

    /// The answer of `/readyz`.
    pub fn ready(&self, now: MonotonicTime) -> Report {
        self.report("readyz", now, |_| true)
    }

    fn report(
        &self,
        name: &'static str,
        now: MonotonicTime,
        asked: impl Fn(Concern) -> bool,
    ) -> Report {
        let own = [
            ("timer", Concern::Life, self.timer(now)),
            ("caches", Concern::Readiness, self.caches()),
            ("api-server", Concern::Readiness, self.api_server(now)),
        ];
        let further = self
            .further
            .iter()
            .map(|(check, (concern, finding))| (*check, *concern, finding.clone()));
        let checks = own
            .into_iter()
            .chain(further)
            .filter(|(_, concern, _)| asked(*concern))
            .map(|(check, _, finding)| (check, finding))
            .collect();
        Report { name, checks }
    }

    fn timer(&self, now: MonotonicTime) -> Finding {
        let silent = now.since(self.ticked);
        if silent <= STUCK_AFTER {
            return Ok(());
        }
        Err(Ailment::TimerStuck(silent))
    }

    fn caches(&self) -> Finding {
        let unread = self.caches.iter().filter(|(_, read)| !**read);
        let unread: Vec<String> = unread.map(|(cache, _)| cache.clone()).collect();
        if unread.is_empty() { Ok(()) } else { Err(Ailment::CachesUnread(unread)) }
    }

    fn api_server(&self, now: MonotonicTime) -> Finding {
        let Some(answered) = self.answered else {
            return Err(Ailment::NeverAnswered);
        };
        let silent = now.since(answered);
        if silent <= UNREACHABLE_AFTER {
            return Ok(());
        }
        Err(Ailment::Unanswered(silent))
    }
}

/// The findings at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    name: &'static str,
    checks: Vec<(&'static str, Finding)>,
}

impl Report {
    /// Whether all checks passed.
    pub fn is_well(&self) -> bool {
        self.checks.iter().all(|(_, finding)| finding.is_ok())
    }

    /// The report in the format of Kubernetes' own components: `ok`, or a line for each check that begins with its
    /// result. If a check has failed, all lines are shown even without `verbose`.
    pub fn text(&self, verbose: bool) -> String {
        if self.is_well() && !verbose {
            return "ok".to_owned();
        }
        let mut text = String::new();
        for (check, finding) in &self.checks {
            // Writing to a String never fails.
            let _ = match finding {
                Ok(()) => writeln!(text, "[+]{check} ok"),
                Err(reason) => writeln!(text, "[-]{check} failed: {reason}"),
            };
        }
        let outcome = if self.is_well() { "passed" } else { "failed" };
        let _ = writeln!(text, "{} check {outcome}", self.name);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    /// Everything has been read, and both the last answer of the API server and the last tick were at 10 s.
    fn well() -> Health {
        let mut health = Health::new(at(0));
        health.await_cache("Leases");
        health.cache_read("Leases");
        health.api_answered(at(10));
        health.ticked(at(10));
        health
    }

    #[test]
    fn a_healthy_process_answers_ok_and_names_each_check_when_asked() {
        assert_eq!(well().ready(at(11)).text(false), "ok");
        assert_eq!(
            well().ready(at(11)).text(true),
            "[+]timer ok\n[+]caches ok\n[+]api-server ok\nreadyz check passed\n"
        );
        assert_eq!(well().live(at(11)).text(true), "[+]timer ok\nlivez check passed\n");
    }

    #[test]
    fn a_process_that_has_just_started_lives_but_is_not_ready_and_says_why() {
        let mut health = Health::new(at(5));
        health.await_cache("Leases");
        health.await_cache("Pods");
        health.await_cache("Services");
        health.cache_read("Pods");
        assert!(health.live(at(6)).is_well());
        assert_eq!(
            health.ready(at(6)).text(false),
            "[+]timer ok\n[-]caches failed: not read yet: Leases, Services\n\
             [-]api-server failed: it has not answered yet\nreadyz check failed\n"
        );
    }

    #[test]
    fn what_is_refused_is_not_waited_for() {
        let mut health = well();
        health.await_cache("Leases of gone");
        health.await_cache("Leases of shop");
        health.cache_answered("Leases of gone");
        let text = health.ready(at(11)).text(false);
        assert!(text.contains("[-]caches failed: not read yet: Leases of shop\n"), "{text}");
        health.cache_read("Leases of shop");
        assert!(health.ready(at(11)).is_well());
    }

    #[test]
    fn a_timer_that_does_not_tick_ends_life_and_a_tick_restores_it() {
        let mut health = well();
        assert!(health.live(at(40)).is_well(), "30 s are not more than 30 s");
        let report = health.live(at(41));
        assert_eq!(
            report.text(false),
            "[-]timer failed: the timer has not ticked for 31 s\nlivez check failed\n"
        );
        assert!(!health.ready(at(41)).is_well());
        health.ticked(at(41));
        assert!(health.live(at(41)).is_well());
    }

    #[test]
    fn an_api_server_that_does_not_answer_ends_readiness_but_not_life() {
        let mut health = well();
        health.ticked(at(71));
        assert!(health.ready(at(70)).is_well());
        let report = health.ready(at(71));
        assert!(
            report.text(false).contains("[-]api-server failed: it has not answered for 61 s\n")
        );
        assert!(health.live(at(71)).is_well());
        health.api_answered(at(71));
        assert!(health.ready(at(71)).is_well());
    }

    #[test]
    fn a_check_that_others_add_counts_for_what_it_concerns() {
        let mut health = well();
        let silent = |kind| Err(Ailment::WatchSilent { kind, silent: Duration::from_secs(9) });
        health.note("watches", Concern::Readiness, silent("Leases"));
        assert!(health.live(at(11)).is_well());
        let text = health.ready(at(11)).text(false);
        let line =
            "[-]watches failed: the watch of Leases has not brought for 9 s what was written\n";
        assert!(text.contains(line), "{text}");
        health.note("watches", Concern::Readiness, Ok(()));
        assert!(health.ready(at(11)).is_well());
        health.note("others", Concern::Life, silent("Services"));
        assert!(!health.live(at(11)).is_well());
    }
}
