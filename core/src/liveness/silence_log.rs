//! What a later process knows of the time before it started (L5): how long each Lease had been silent.
//!
//! The probe carries a counter of proven time, and marks. A mark is the version that the API server gave to an earlier
//! renewal, with the value of the counter at that time. Versions rise with every write of a Lease. So a Lease with a
//! version at or below a mark has not been written since the mark, and the counter tells for how much proven time. In
//! this way, the silence of every instance is known, whatever their number, without a write for any of them.
//!
//! Versions can be compared only within one history of the store. So marks name the Lease that they were written into
//! by its uid, and all of them are below the version of that Lease. A Lease that was copied, to another cluster or
//! from a backup, has another uid. A Lease in a store that was restored has a lower version than the marks.

use std::{fmt::Write, time::Duration};

use crate::vocabulary::version::Version;

/// A counter of proven time, with marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SilenceLog {
    total: Duration,
    /// Versions of renewals, with the value of the counter when they came back. Both rise.
    marks: Vec<(Version, Duration)>,
}

/// The largest number of marks. They are close together for the recent past, and further apart before.
const MARKS: usize = 128;

/// The start of the text, which names the version of this format. Other formats are not read.
const FORMAT: &str = "v2";

/// Marks that are younger than this are not thinned out.
const FINE: Duration = Duration::from_secs(4);

impl SilenceLog {
    /// The value of the counter: the total proven time.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// A renewal with this version has come back, `under_way` after it was sent. `further` is the proven time that it
    /// adds.
    pub(crate) fn record(&mut self, further: Duration, version: Version, under_way: Duration) {
        self.total += further;
        // Another Lease may have been written between this renewal and its return.
        let then = self.total + under_way;
        if self.marks.last().is_some_and(|(last, _)| *last > version) {
            // Versions only rise. So the marks belong to another history, and say nothing about versions of this one.
            self.forget_marks();
        }
        match self.marks.last_mut() {
            Some((last, _)) if *last == version => {}
            // If no time was proven in between, the mark of the later renewal covers more Leases.
            Some((last, when)) if *when >= then => *last = version,
            _ => {
                self.marks.push((version, then));
                self.thin_out();
            }
        }
    }

    /// Forgets all marks, because they belong to a history of the store that does not continue.
    pub(crate) fn forget_marks(&mut self) {
        self.marks.clear();
    }

    /// For how long a Lease that still has this version has been silent.
    pub fn silence(&self, version: Version) -> Duration {
        let place = self.marks.partition_point(|(mark, _)| *mark < version);
        self.marks.get(place).map_or(Duration::ZERO, |(_, then)| self.total.saturating_sub(*then))
    }

    /// Drops marks, so that those that are left are at most a quarter of their age apart. Only the first mark in each
    /// cell of a grid is kept. The cells get wider with age, by powers of two.
    fn thin_out(&mut self) {
        let total = self.total;
        let cell = |then: Duration| {
            let age = total.saturating_sub(then).as_millis();
            let width = if age < FINE.as_millis() { 1 } else { 1_u128 << (age / 4).ilog2() };
            (width, then.as_millis() / width)
        };
        self.marks.dedup_by_key(|(_, then)| cell(*then));
        let too_many = self.marks.len().saturating_sub(MARKS);
        self.marks.drain(..too_many);
    }
}

/// The text is not a log, or is one of another history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a memory of proven time of this history")]
pub struct NotASilenceLog;

impl SilenceLog {
    /// The memory as it is written into the Lease with this uid.
    pub fn written_into(&self, uid: &str) -> String {
        let mut text = format!("{FORMAT} {uid} {}", self.total.as_millis());
        for (version, then) in &self.marks {
            // Writing to a String never fails.
            let _ = write!(text, " {}:{}", version.0, then.as_millis());
        }
        text
    }

    /// Reads the memory from the Lease with this uid, which now has this version.
    ///
    /// # Errors
    /// [`NotASilenceLog`] if [`Self::written_into`] does not write such a text; if it was written into another Lease; or if
    /// it contains a version that is not below that of the Lease.
    pub fn read_from(uid: &str, version: Version, text: &str) -> Result<Self, NotASilenceLog> {
        let millis =
            |text: &str| text.parse().map(Duration::from_millis).map_err(|_| NotASilenceLog);
        let mut words = text.split(' ');
        if words.next() != Some(FORMAT) || words.next() != Some(uid) || uid.is_empty() {
            return Err(NotASilenceLog);
        }
        let total = millis(words.next().ok_or(NotASilenceLog)?)?;
        let mut marks: Vec<(Version, Duration)> = Vec::new();
        for word in words.take(MARKS) {
            let (version, then) = word.split_once(':').ok_or(NotASilenceLog)?;
            let mark = (Version(version.parse().map_err(|_| NotASilenceLog)?), millis(then)?);
            if marks.last().is_some_and(|last| last.0 >= mark.0 || last.1 > mark.1) {
                return Err(NotASilenceLog);
            }
            marks.push(mark);
        }
        // The renewal that wrote the marks is later than all of them.
        if marks.last().is_some_and(|(last, _)| *last >= version) {
            return Err(NotASilenceLog);
        }
        Ok(Self { total, marks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One renewal per second, each 10 ms under way. The n-th has version 100 × n.
    fn after(seconds: u64) -> SilenceLog {
        let mut log = SilenceLog::default();
        log.record(Duration::ZERO, Version(0), Duration::from_millis(10));
        for n in 1..=seconds {
            log.record(secs(1), Version(100 * n), Duration::from_millis(10));
        }
        log
    }

    #[test]
    fn a_lease_is_silent_since_the_first_renewal_that_came_after_it() {
        let log = after(10);
        assert_eq!(log.silence(Version(750)), Duration::from_millis(1990));
        assert_eq!(log.silence(Version(800)), Duration::from_millis(1990));
        assert_eq!(log.silence(Version(801)), Duration::from_millis(990));
    }

    #[test]
    fn a_lease_that_was_written_since_is_not_silent() {
        let log = after(10);
        assert_eq!(log.silence(Version(1000)), Duration::ZERO);
        assert_eq!(log.silence(Version(1001)), Duration::ZERO);
    }

    #[test]
    fn a_day_of_silence_fits_into_few_marks_with_an_error_of_a_quarter() {
        let log = after(24 * 3600);
        assert!(log.marks.len() <= MARKS, "{}", log.marks.len());
        for silent in [5, 30, 300, 3600, 20 * 3600] {
            let version = Version(100 * (24 * 3600 - silent) - 50);
            let told = log.silence(version);
            assert!(told <= secs(silent), "{told:?} of {silent} s");
            assert!(told >= secs(silent) * 3 / 4 - secs(1), "{told:?} of {silent} s");
        }
    }

    const UID: &str = "9a1f";

    /// A memory that is read where versions have reached 200,000.
    fn read(text: &str) -> Result<SilenceLog, NotASilenceLog> {
        SilenceLog::read_from(UID, Version(200_000), text)
    }

    #[test]
    fn it_is_written_and_read_back_as_it_is() {
        let log = after(1000);
        assert_eq!(read(&log.written_into(UID)), Ok(log));
        assert_eq!(read("v2 9a1f 0"), Ok(SilenceLog::default()));
    }

    #[test]
    fn an_invalid_log_is_ignored() {
        for text in ["", "x", "1 2", "9 5:3 4:4", "9 5:3 6:2", "9 5:3 5:4", "-1", "1  2:3"] {
            assert_eq!(read(&format!("v2 9a1f {text}")), Err(NotASilenceLog), "{text:?}");
            assert_eq!(read(text), Err(NotASilenceLog), "{text:?}");
        }
    }

    #[test]
    fn another_format_is_ignored_and_not_misread() {
        for text in ["9 5:3", "v1 9a1f 9 5:3", "v3 9a1f 9 5:3", "v2", "v2 9a1f", "v2  9 5:3"] {
            assert_eq!(read(text), Err(NotASilenceLog), "{text:?}");
        }
    }

    #[test]
    fn what_was_written_into_another_lease_is_of_another_history() {
        let text = after(10).written_into(UID);
        assert_eq!(SilenceLog::read_from("copy", Version(200_000), &text), Err(NotASilenceLog));
        assert_eq!(SilenceLog::read_from("", Version(200_000), &text), Err(NotASilenceLog));
    }

    #[test]
    fn marks_of_versions_that_are_yet_to_come_are_of_another_history() {
        let text = after(10).written_into(UID);
        assert!(SilenceLog::read_from(UID, Version(1001), &text).is_ok());
        for restored in [1000, 999, 400, 1] {
            assert_eq!(SilenceLog::read_from(UID, Version(restored), &text), Err(NotASilenceLog));
        }
    }

    #[test]
    fn a_renewal_at_a_lower_version_than_a_mark_ends_what_was_known_by_versions() {
        let mut log = after(200);
        log.record(secs(1), Version(400), Duration::from_millis(10));
        assert_eq!(log.total(), secs(201), "time has passed all the same");
        for version in [401, 750, 20_000] {
            assert_eq!(log.silence(Version(version)), Duration::ZERO, "{version}");
        }
        log.record(secs(1), Version(500), Duration::from_millis(10));
        assert_eq!(log.silence(Version(399)), Duration::from_millis(990));
        assert_eq!(log.silence(Version(401)), Duration::ZERO);
        assert!(SilenceLog::read_from(UID, Version(501), &log.written_into(UID)).is_ok());
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_stopped() {
        let mut log = read(&after(10).written_into(UID)).expect("a memory");
        log.record(Duration::ZERO, Version(5000), Duration::from_millis(10));
        log.record(secs(2), Version(5100), Duration::from_millis(10));
        assert_eq!(log.silence(Version(750)), Duration::from_millis(3990));
        assert_eq!(log.silence(Version(4999)), Duration::from_millis(1990));
    }
}
