//! The raw results: CSV files with one line for each observation.

use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::systems::Name;

/// A kind of line, which has a file of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// The name of the file.
    const FILE: &'static str;
}

/// Identifies the run of a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The measured system.
    pub system: Name,
    /// What differs from the usual setup; empty for the usual setup.
    pub variant: String,
    /// How many instances beat.
    pub instances: u32,
    /// How many renewals are due per second.
    pub beats_per_second: f64,
    /// The number of the run, from 1.
    pub run: u32,
}

// All kinds of lines begin with the same fields. A macro repeats these fields, since a CSV record cannot contain
// another record.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident in $file:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            /// The measured system.
            pub system: Name,
            /// What differs from the usual setup; empty for the usual setup.
            pub variant: String,
            /// How many instances beat.
            pub instances: u32,
            /// How many renewals are due per second.
            pub beats_per_second: f64,
            /// The number of the run, from 1.
            pub run: u32,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Record for $name {
            const FILE: &'static str = $file;
        }

        impl $name {
            /// Makes a line of a run.
            #[allow(clippy::too_many_arguments, reason = "a column each; some kinds have many")]
            pub fn of(run: &Run, $($field: $type),*) -> Self {
                let Run { system, variant, instances, beats_per_second, run } = run.clone();
                Self { system, variant, instances, beats_per_second, run, $($field),* }
            }
        }
    };
}

pub mod cost;
pub mod plain;

record! {
    /// An instance died, deregistered or came back, and the watcher saw it. Times are seconds since the run began.
    Lag in "lag.csv" {
        /// The scenario: `single`, `mass`, `leave` or `return`.
        scenario: String,
        /// The instance.
        instance: u32,
        /// When the last renewal, or the request of another act, was sent.
        last_renewal: f64,
        /// Seconds from then to the answer of the last renewal; 0 for other acts.
        answer: f64,
        /// The moment after which the act counts as late.
        deadline: f64,
        /// When the watcher saw the effect.
        seen: f64,
        /// Seconds from the deadline to the moment at which the watcher saw the effect.
        lag: f64,
    }
}

impl Lag {
    /// Returns the seconds by which the lag exceeds one ttl after the answer to the last renewal.
    pub fn past_answer(&self) -> f64 {
        self.lag - self.answer
    }
}

record! {
    /// An instance did something, and the watcher did not see it.
    Missed in "missed.csv" {
        /// As in `lag.csv`; `stray` for an instance that was removed although it beat.
        scenario: String,
        /// The instance.
        instance: u32,
    }
}

record! {
    /// A part was suspended while all instances were alive.
    Freeze in "freeze.csv" {
        /// Which process.
        part: String,
        /// For how many seconds.
        seconds: f64,
        /// How many living instances were removed.
        removed: u32,
        /// How many renewals failed or got no answer.
        failures: u64,
    }
}

record! {
    /// The resources that a process used in steady state.
    Usage in "usage.csv" {
        /// Which process.
        part: String,
        /// Over how many seconds.
        seconds: f64,
        /// How many renewals were answered per second.
        renewals_per_second: f64,
        /// The processor time as a share of one core.
        cpu: f64,
        /// Memory at the end, in MiB.
        rss_mib: f64,
        /// The most memory ever, in MiB.
        peak_mib: f64,
    }
}

record! {
    /// Renewals that are sent as soon as the previous one is answered.
    Capacity in "capacity.csv" {
        /// How many clients renewed at the same time.
        clients: u32,
        /// For how many seconds.
        seconds: f64,
        /// How many renewals were answered per second.
        renewals_per_second: f64,
        /// How many renewals were answered with an error.
        failures: u64,
    }
}

record! {
    /// A metric of a process.
    Metric in "metrics.csv" {
        /// Which process.
        part: String,
        /// The time: `steady began`, `steady ended` or `end`, which is before any part is suspended.
        phase: String,
        /// The series.
        series: String,
        /// Its value.
        value: f64,
    }
}

/// A measured system, or the reason why it was not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// The name of the system.
    pub system: Name,
    /// Its version and setup; empty if it was not measured.
    pub version: String,
    /// Why the system was not measured; empty if it was measured.
    pub absent: String,
}

impl Record for System {
    const FILE: &'static str = "systems.csv";
}

/// Adds lines to a file of a folder. The first lines also write the headings.
pub fn append<R: Record>(folder: &Path, records: &[R]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(R::FILE);
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = csv::WriterBuilder::new().has_headers(is_new).from_writer(file);
    for record in records {
        writer.serialize(record)?;
    }
    writer.flush()?;
    Ok(())
}

/// Returns the lines of a file, or none if there is no such file.
pub fn read<R: Record>(folder: &Path) -> Result<Vec<R>> {
    let path = folder.join(R::FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut reader = csv::Reader::from_path(&path)?;
    let records = reader.deserialize().collect::<Result<_, csv::Error>>();
    records.with_context(|| format!("{} cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(variant: &str) -> Run {
        Run {
            system: Name::Redis,
            variant: variant.to_owned(),
            instances: 100,
            beats_per_second: 100.0 / 3.0,
            run: 2,
        }
    }

    #[test]
    fn what_is_written_in_two_goes_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let lag = |variant, lag| {
            Lag::of(&run(variant), "single".to_owned(), 7, 1.25, 0.25, 11.25, 11.5 + lag, lag)
        };
        let lines = [lag("", 0.1 + 0.2), lag("beside 10,000 \"other\" keys", -1e-9), lag("", 3.0)];
        append(folder.path(), &lines[..2]).unwrap();
        append(folder.path(), &lines[2..]).unwrap();
        assert_eq!(read::<Lag>(folder.path()).unwrap(), lines);
        let text = fs::read_to_string(folder.path().join("lag.csv")).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("system,")).count(), 1, "{text}");
    }

    #[test]
    fn where_nothing_was_written_nothing_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read::<Freeze>(folder.path()).unwrap(), []);
    }
}
