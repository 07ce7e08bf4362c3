//! The raw results: CSV files, a line for each thing that was seen.

use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::systems::Name;

/// A kind of line, and the file of such lines.
pub trait Record: Serialize + DeserializeOwned {
    /// The file's name.
    const FILE: &'static str;
}

/// Which run a line is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What was measured.
    pub system: Name,
    /// What was special about it; empty for the usual setup.
    pub variant: String,
    /// How many instances beat.
    pub instances: u32,
    /// So many renewals a second are due.
    pub beats_per_second: f64,
    /// The number of the run, from 1.
    pub run: u32,
}

// Each kind of line begins with the same fields. Written out by a macro, since a CSV line cannot hold a record in a
// record.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident in $file:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            /// What was measured.
            pub system: Name,
            /// What was special about it; empty for the usual setup.
            pub variant: String,
            /// How many instances beat.
            pub instances: u32,
            /// So many renewals a second are due.
            pub beats_per_second: f64,
            /// The number of the run, from 1.
            pub run: u32,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Record for $name {
            const FILE: &'static str = $file;
        }

        impl $name {
            /// A line of a run.
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
    /// Somebody died, left or came back, and was seen to. Times are seconds since the run began.
    Lag in "lag.csv" {
        /// How: `single`, `mass`, `leave` or `return`.
        scenario: String,
        /// Who.
        instance: u32,
        /// When its last renewal, or what it had to say, was sent.
        last_renewal: f64,
        /// Seconds from then to the answer of a last renewal; 0 for all else.
        answer: f64,
        /// From when on it counts as late.
        deadline: f64,
        /// When the watcher saw it.
        seen: f64,
        /// Seconds from the deadline to that.
        lag: f64,
    }
}

impl Lag {
    /// Seconds past a ttl after the last renewal was answered.
    pub fn past_answer(&self) -> f64 {
        self.lag - self.answer
    }
}

record! {
    /// Somebody did something and was not seen to.
    Missed in "missed.csv" {
        /// As in `lag.csv`; `stray` for one that was removed though it beat.
        scenario: String,
        /// Who.
        instance: u32,
    }
}

record! {
    /// A part stood still while everybody was alive.
    Freeze in "freeze.csv" {
        /// Which process.
        part: String,
        /// For so many seconds.
        seconds: f64,
        /// So many of the living were removed.
        removed: u32,
        /// So many renewals were not answered, or with an error.
        failures: u64,
    }
}

record! {
    /// What a process used in steady state.
    Usage in "usage.csv" {
        /// Which process.
        part: String,
        /// Over so many seconds.
        seconds: f64,
        /// So many renewals a second were answered.
        renewals_per_second: f64,
        /// Share of one core.
        cpu: f64,
        /// Memory at the end, in MiB.
        rss_mib: f64,
        /// The most memory ever, in MiB.
        peak_mib: f64,
    }
}

record! {
    /// Renewals as fast as they are answered.
    Capacity in "capacity.csv" {
        /// By so many at a time.
        clients: u32,
        /// For so many seconds.
        seconds: f64,
        /// So many a second were answered.
        renewals_per_second: f64,
        /// So many were answered with an error.
        failures: u64,
    }
}

record! {
    /// What a process said of itself.
    Metric in "metrics.csv" {
        /// Which process.
        part: String,
        /// When: `steady began`, `steady ended` or `end`, which is before anything stands still.
        phase: String,
        /// The series.
        series: String,
        /// Its value.
        value: f64,
    }
}

/// What was measured, or why it was not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Its name.
    pub system: Name,
    /// Its version and setup; empty when it was not measured.
    pub version: String,
    /// Why it was not measured; empty when it was.
    pub absent: String,
}

impl Record for System {
    const FILE: &'static str = "systems.csv";
}

/// Adds lines to a file of a folder, which gets its headings with the first of them.
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

/// The lines of a file; none when there is no such file.
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
