//! When the next probe is due, and what follows from the outcomes. It has no I/O and no clock: all times
//! count from the moment at which probing began.

use std::time::Duration;

use beatkeeper_api::heartbeat::NOTE_MAX;

use super::outcome::Outcome;
use super::spec::{Probe, Timing};
use super::text;

/// The maximum length of the part of a message that names the target: the reason after it must not be cut
/// off.
const SUBJECT_MAX: usize = NOTE_MAX / 2;

/// The probe period of a target that is starting. The kubelet, too, may probe a container that is not ready
/// outside its period. With the default period, the app of a sidecar would be published ten seconds late,
/// because the first probe comes before the app is ready.
const STARTUP_PERIOD: Duration = Duration::from_secs(1);
/// How long the startup period applies after the first probe. A target that has not come up by then, such as
/// a remote target that is away, is probed at its configured period.
const STARTUP: Duration = Duration::from_secs(60);

/// The result of a series of probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the target can serve.
    pub healthy: bool,
    /// Why the target cannot serve; for a healthy target, a warning for a person. One line, at most
    /// [`NOTE_MAX`] characters.
    pub message: Option<String>,
    /// Whether enough probes were made: as many successes, or failures, in a row as a threshold requires.
    /// Until then the verdict is unhealthy because no success is known.
    pub decided: bool,
}

/// The probes of one target, one after the other.
///
/// The decision is that of the kubelet for readiness: a target is unhealthy until it has reached the
/// threshold of successes. After that, its health changes after `failureThreshold` failures or
/// `successThreshold` successes in a row. The first probe comes after the initial delay, and not at a random
/// point of the first period: the kubelet spreads the probes of a whole node at its start, but an agent has
/// only its own.
///
/// While the health stays the same, a new message needs the same number of probes in a row. So code that
/// publishes the message writes once for a new reason, and not at each probe of a command that prints the
/// time. Only the very first message is taken at once.
#[derive(Debug, Clone)]
pub struct Series {
    timing: Timing,
    subject: String,
    due: Duration,
    verdict: Verdict,
    /// Whether the target has ever been healthy.
    is_up: bool,
    /// Whether the verdict comes from a probe, and is not the initial one.
    told: bool,
    last: Option<Verdict>,
    /// How many of the last outcomes had the health of the last one, and how many had its message.
    same_side: u32,
    same_words: u32,
}

impl Series {
    /// Begins a series in which no probe has been made.
    pub fn new(probe: &Probe) -> Self {
        let subject = text::cut(&probe.check.subject(), SUBJECT_MAX);
        let message = Some(format!("{subject}: no success yet"));
        Self {
            timing: probe.timing,
            subject,
            due: probe.timing.initial_delay,
            verdict: Verdict { healthy: false, message, decided: false },
            is_up: false,
            told: false,
            last: None,
            same_side: 0,
            same_words: 0,
        }
    }

    /// When the next probe starts; at once if that time has passed.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// What is known so far.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Records the outcome of a probe that was started at `started`. Returns true if the verdict has changed.
    pub fn record(&mut self, started: Duration, outcome: Outcome) -> bool {
        let said = self.say(outcome);
        let (same_side, same_words) = match &self.last {
            Some(last) => (last.healthy == said.healthy, *last == said),
            None => (false, false),
        };
        self.same_side = if same_side { self.same_side.saturating_add(1) } else { 1 };
        self.same_words = if same_words { self.same_words.saturating_add(1) } else { 1 };
        let threshold = if said.healthy {
            self.timing.success_threshold
        } else {
            self.timing.failure_threshold
        };
        let counts = if said.healthy != self.verdict.healthy {
            self.same_side >= threshold
        } else {
            !self.told || self.same_words >= threshold
        };
        let decided = self.verdict.decided || self.same_side >= threshold;
        self.last = Some(said.clone());
        let said = Verdict { decided, ..said };
        let changed = counts && self.verdict != said;
        if counts {
            self.told = true;
            self.verdict = said;
        }
        let changed = changed || (decided && !self.verdict.decided);
        self.verdict.decided |= decided;
        self.is_up |= self.verdict.healthy;
        self.due = started.saturating_add(self.period(started));
        changed
    }

    fn period(&self, started: Duration) -> Duration {
        let starts = !self.is_up && started < self.timing.initial_delay.saturating_add(STARTUP);
        if starts { self.timing.period.min(STARTUP_PERIOD) } else { self.timing.period }
    }

    fn say(&self, outcome: Outcome) -> Verdict {
        let (healthy, words) = match outcome {
            Ok(warning) => (true, warning),
            Err(failure) => (false, Some(failure.to_string())),
        };
        let message = words
            .map(|words| text::cut(&text::line(&format!("{}: {words}", self.subject)), NOTE_MAX));
        Verdict { healthy, message, decided: false }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::failure::ProbeFailure;
    use super::*;
    use proptest::prelude::*;

    fn series(success_threshold: u32, failure_threshold: u32) -> Series {
        let mut probe: Probe = "tcp://:5432".parse().expect("a probe");
        probe.timing.success_threshold = success_threshold;
        probe.timing.failure_threshold = failure_threshold;
        Series::new(&probe)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn refused() -> Outcome {
        Err(ProbeFailure::NoConnection(io::ErrorKind::ConnectionRefused.into()))
    }

    /// A failure with the message `cannot start: {word}`.
    fn failing(word: &str) -> Outcome {
        Err(ProbeFailure::NotStarted(io::Error::other(word)))
    }

    fn message(series: &Series) -> &str {
        series.verdict().message.as_deref().unwrap_or_default()
    }

    /// Records outcomes of which only the message matters. Returns which of them changed the verdict.
    fn record(series: &mut Series, outcomes: &[&str]) -> Vec<bool> {
        let outcome = |word: &&str| if *word == "ok" { Ok(None) } else { failing(word) };
        outcomes.iter().map(|word| series.record(secs(0), outcome(word))).collect()
    }

    #[test]
    fn no_target_is_healthy_before_its_first_success() {
        let mut series = series(1, 3);
        assert!(!series.verdict().healthy);
        assert_eq!(message(&series), "tcp probe of 127.0.0.1:5432: no success yet");
        assert!(series.record(secs(0), Ok(None)));
        assert_eq!(*series.verdict(), Verdict { healthy: true, message: None, decided: true });
    }

    #[test]
    fn the_first_failure_says_at_once_why_there_is_no_success_yet() {
        let mut series = series(1, 3);
        assert!(series.record(secs(0), refused()));
        assert_eq!(message(&series), "tcp probe of 127.0.0.1:5432: connection refused");
    }

    #[test]
    fn until_a_threshold_is_reached_nothing_is_decided() {
        let mut series = series(1, 3);
        assert!(!series.verdict().decided);
        assert_eq!(record(&mut series, &["a", "a"]), [true, false]);
        assert!(!series.verdict().decided, "it may just be slow to answer");
        assert_eq!(record(&mut series, &["a"]), [true]);
        assert!(series.verdict().decided && !series.verdict().healthy);
    }

    #[test]
    fn sides_change_when_a_threshold_is_reached_in_a_row() {
        let mut series = series(2, 3);
        assert_eq!(record(&mut series, &["ok", "ok"]), [false, true]);
        assert_eq!(record(&mut series, &["a", "b", "ok", "a", "b"]), [false; 5]);
        assert!(series.verdict().healthy, "never three in a row");
        assert_eq!(record(&mut series, &["c"]), [true]);
        assert_eq!(
            message(&series),
            "tcp probe of 127.0.0.1:5432: cannot start: c",
            "the last one's reason"
        );
        assert_eq!(record(&mut series, &["ok", "c", "ok", "ok"]), [false, false, false, true]);
    }

    #[test]
    fn while_it_fails_another_reason_is_told_when_it_lasts() {
        let mut series = series(1, 2);
        record(&mut series, &["refused"]);
        // The first of these decides that the target fails. Its message is not taken: it has come only once.
        assert_eq!(record(&mut series, &["10:01", "10:02", "10:03"]), [true, false, false]);
        assert_eq!(message(&series), "tcp probe of 127.0.0.1:5432: cannot start: refused");
        assert_eq!(record(&mut series, &["503", "503", "503"]), [false, true, false]);
        assert_eq!(message(&series), "tcp probe of 127.0.0.1:5432: cannot start: 503");
    }

    #[test]
    fn a_success_can_come_with_a_warning() {
        let mut series = series(1, 3);
        assert!(series.record(secs(0), Ok(Some("redirected".to_owned()))));
        assert!(series.verdict().healthy);
        assert_eq!(message(&series), "tcp probe of 127.0.0.1:5432: redirected");
        assert!(series.record(secs(0), Ok(None)));
        assert_eq!(message(&series), "");
    }

    #[test]
    fn the_period_counts_from_start_to_start() {
        let mut series = series(1, 3);
        series.record(secs(5), Ok(None));
        assert_eq!(series.due(), secs(15));
        series.record(secs(16), refused());
        assert_eq!(series.due(), secs(26), "a late one moves those after it: no two come at once");
    }

    #[test]
    fn a_target_that_starts_is_probed_every_second_for_a_minute() {
        let mut slow = series(1, 3);
        slow.record(secs(0), refused());
        assert_eq!(slow.due(), secs(1));
        slow.record(secs(59), refused());
        assert_eq!(slow.due(), secs(60));
        slow.record(secs(60), refused());
        assert_eq!(slow.due(), secs(70), "it is away, and does not start");
        let mut quick = series(2, 3);
        quick.record(secs(3), Ok(None));
        assert_eq!(quick.due(), secs(4), "one success of two");
        quick.record(secs(4), Ok(None));
        assert_eq!(quick.due(), secs(14));
        quick.record(secs(14), refused());
        assert_eq!(quick.due(), secs(24), "it fails, and does not start");
    }

    #[test]
    fn the_first_probe_waits_for_the_initial_delay() {
        let mut probe: Probe = "tcp://:5432".parse().expect("a probe");
        assert_eq!(Series::new(&probe).due(), secs(0));
        probe.timing.initial_delay = secs(30);
        assert_eq!(Series::new(&probe).due(), secs(30));
    }

    #[test]
    fn a_long_target_does_not_push_out_the_reason() {
        let path = "p".repeat(1000);
        let probe: Probe = format!("http://:8080/{path}").parse().expect("a probe");
        let mut series = Series::new(&probe);
        series.record(secs(0), Err(ProbeFailure::HttpStatus(503)));
        assert!(message(&series).ends_with("…: HTTP status 503"), "{}", message(&series));
    }

    proptest! {
        /// The kubelet's rule in other words: look at all outcomes so far, from the last one back.
        #[test]
        fn health_follows_the_last_run_that_reached_its_threshold(
            outcomes in prop::collection::vec(any::<bool>(), 0..40), success in 1u32..4, failure in 1u32..4,
        ) {
            let mut series = series(success, failure);
            for &outcome in &outcomes {
                let before = series.verdict().clone();
                let changed = series.record(secs(0), if outcome { Ok(None) } else { refused() });
                prop_assert_eq!(changed, before != *series.verdict());
            }
            let decisive = (0..=outcomes.len()).rev().find_map(|end| {
                let side = *outcomes[..end].last()?;
                let run = outcomes[..end].iter().rev().take_while(|&&o| o == side).count();
                (run >= if side { success } else { failure } as usize).then_some(side)
            });
            prop_assert_eq!(series.verdict().healthy, decisive.unwrap_or(false));
        }

        #[test]
        fn no_message_is_longer_than_a_note_or_has_more_than_a_line(reason in any::<String>()) {
            let mut series = series(1, 1);
            series.record(secs(0), failing(&reason));
            prop_assert!(message(&series).chars().count() <= NOTE_MAX);
            prop_assert!(!message(&series).chars().any(char::is_control));
        }
    }
}
