//! Compares the records: which instances were missing, which were left over, and how late dead
//! instances left.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use beatkeeper_test_support::Stay;

use super::{
    conditions::Conditions,
    fixture::Scale,
    record::{End, InstanceRecord},
};

/// An instance that is still published this long after the evidence was complete counts as late.
const LATE: Duration = Duration::from_secs(1);

/// The results of one case.
#[derive(Debug, Default)]
pub struct Evaluation {
    pub faults: u32,
    pub instances: usize,
    pub beats: usize,
    pub died: usize,
    pub left: usize,
    /// Instances that were removed although they had beaten in time.
    pub false_prunes: Vec<String>,
    /// Instances that were removed because this test did not make them beat in time.
    pub own_silence: Vec<String>,
    /// Instances that were still published when all should have been calm. `absent` has those that
    /// should have been published.
    pub leftover: Vec<String>,
    pub absent: Vec<String>,
    /// Instances that were still published one second after the evidence was complete, where no
    /// pause of the machine explains it.
    pub late: Vec<String>,
    /// From the answer to the first beat until published, in seconds.
    pub lags_of_new: Vec<f64>,
    /// From the deadline (dead) or from the answer to the deletion (left) until removed, in
    /// seconds.
    pub lags_of_dead: Vec<f64>,
    pub lags_of_left: Vec<f64>,
    pub states: usize,
    pub away: Duration,
    pub longest_pause: Duration,
}

impl Evaluation {
    /// Enters the record of one instance.
    pub fn enter(
        &mut self,
        address: &str,
        record: &InstanceRecord,
        stays: &[Stay],
        conditions: &Conditions,
        scale: &Scale,
    ) {
        self.instances += 1;
        self.beats += record.beats.len();
        self.died += usize::from(matches!(record.end, End::Silent(_)));
        self.left += usize::from(matches!(record.end, End::Left { .. }));
        let who = format!("{} ({address})", record.instance);
        for gone in stays.iter().filter_map(|stay| stay.to) {
            self.judge_going(&who, record, gone, conditions, scale);
        }
        if let (Some(first), Some(stay)) = (record.beats.first(), stays.first()) {
            self.lags_of_new.push(seconds(first.answered, stay.from));
        }
        let Some(gone) = stays.last().and_then(|stay| stay.to) else { return };
        let (due, lags) = match record.end {
            End::Silent(_) => {
                let last = record.last_beat(gone).map(|beat| beat.answered);
                let due = last.map(|last| conditions.due(last, scale.ttl, scale.interval));
                (due, &mut self.lags_of_dead)
            }
            End::Left { answered, .. } => {
                let due = answered
                    .map(|answered| conditions.due(answered, Duration::ZERO, Duration::ZERO));
                (due, &mut self.lags_of_left)
            }
            End::Alive => return,
        };
        let Some(due) = due else { return };
        let lag = seconds(due, gone);
        lags.push(lag);
        // Proven time adds the time for which the machine was held up before the deadline.
        let since = record.last_beat(gone).map_or(due, |beat| beat.answered);
        let explained = conditions.held_up(since, gone);
        if gone.saturating_duration_since(due) > LATE + explained {
            self.late.push(format!("{who} {lag:.3} s ({explained:?} held up)"));
        }
    }

    /// Judges whether the removal of an instance at a moment was right.
    fn judge_going(
        &mut self,
        who: &str,
        record: &InstanceRecord,
        gone: Instant,
        conditions: &Conditions,
        scale: &Scale,
    ) {
        if matches!(record.end, End::Left { asked, .. } if asked <= gone) {
            return;
        }
        // Counted from when the beat was sent, because no observer can have seen it earlier.
        let silent = record.last_beat(gone).map(|beat| conditions.available(beat.sent, gone));
        if silent.is_none_or(|silent| silent < scale.ttl) {
            let away = silent.unwrap_or_default();
            self.false_prunes.push(format!("{who} after {away:?} of silence"));
        } else if !matches!(record.end, End::Silent(at) if at <= gone) {
            self.own_silence.push(format!("{who} after {silent:?} of silence"));
        }
    }

    /// Sorts the measured lags.
    pub fn close(&mut self) {
        for lags in [&mut self.lags_of_new, &mut self.lags_of_dead, &mut self.lags_of_left] {
            lags.sort_by(f64::total_cmp);
        }
    }

    /// A row of the table in docs/reliability.md.
    pub fn row(&self, case: &str) -> String {
        format!(
            "| {case} | {} | {} | {} | {} + {} | {} | {} | {} | {} | {} | {} | {} | {} ms |",
            self.faults,
            self.instances,
            self.beats,
            self.died,
            self.left,
            self.states,
            self.false_prunes.len(),
            self.leftover.len(),
            self.late.len(),
            told(&self.lags_of_new),
            told(&self.lags_of_dead),
            told(&self.lags_of_left),
            self.longest_pause.as_millis(),
        )
    }

    /// Remarks to print beside the row.
    pub fn remarks(&self) -> String {
        let mut remarks = format!("the API server was away for {:.1} s", self.away.as_secs_f64());
        let lists = [
            ("pruned although they beat", &self.false_prunes),
            ("left over", &self.leftover),
            ("absent", &self.absent),
            ("late", &self.late),
            ("not made to beat in time by this test", &self.own_silence),
        ];
        for (what, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            let some: Vec<&str> = list.iter().take(10).map(String::as_str).collect();
            let _ = write!(remarks, "; {} {what}: {}", list.len(), some.join(", "));
        }
        remarks
    }
}

/// The median, the 99th percentile and the maximum.
fn told(sorted: &[f64]) -> String {
    if sorted.is_empty() {
        return "–".to_owned();
    }
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize] * 1e3;
    format!("{:.0} / {:.0} / {:.0} ms", at(0.5), at(0.99), at(1.0))
}

fn seconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(later) => later.as_secs_f64(),
        None => -from.duration_since(to).as_secs_f64(),
    }
}
