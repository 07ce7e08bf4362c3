//! The raw results: CSV files with one line for each observation. report/schema.sql describes their columns.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::system::System;

/// Identifies the run of a line. These are the first columns of most files.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub system: System,
    /// What differs from the usual setup; empty for the usual setup.
    pub variant: String,
    /// How many instances beat.
    pub instances: u32,
    /// How many renewals are due per second.
    pub beats: f64,
    /// The number of the run, from 1.
    pub run: u32,
}

/// The results of one run.
pub struct Results {
    pub run: Run,
    /// The folder that they are added to.
    pub out: PathBuf,
}

impl Results {
    /// Adds lines to the file `NAME.csv`. Each gets the columns of the run.
    pub fn append(&self, name: &str, lines: impl IntoIterator<Item = Value>) -> Result<()> {
        let line = |columns| {
            let mut line = json!(self.run);
            if let (Value::Object(line), Value::Object(columns)) = (&mut line, columns) {
                line.extend(columns);
            }
            line
        };
        append(&self.out, name, &lines.into_iter().map(line).collect::<Vec<_>>())
    }

    /// Records the version of the measured system.
    pub fn append_version(&self, version: &str) -> Result<()> {
        self.append("systems", [json!({ "version": version })])
    }
}

/// Adds lines to the file `NAME.csv` of a folder. All lines of a file have the same columns.
pub fn append(folder: &Path, name: &str, lines: &[Value]) -> Result<()> {
    let Some(first) = lines.first() else { return Ok(()) };
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{name}.csv"));
    let is_new = !path.exists();
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = csv::Writer::from_writer(file);
    let columns = columns(first);
    if is_new {
        writer.write_record(columns.keys())?;
    }
    for line in lines {
        let line = self::columns(line);
        ensure!(line.keys().eq(columns.keys()), "the lines of {name} differ in their columns");
        writer.write_record(line.into_values())?;
    }
    writer.flush()?;
    Ok(())
}

/// Returns the columns of a line, in the order of their names.
fn columns(line: &Value) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let columns = line.as_object().into_iter().flatten();
    columns.map(|(name, value)| (name.as_str(), text(value))).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns the results of a run in a folder.
    pub fn results(folder: &Path) -> Results {
        let (system, variant) = (System::Redis, "beside 10 \"other\" keys".to_owned());
        let run = Run { system, variant, instances: 100, beats: 33.5, run: 2 };
        Results { run, out: folder.to_owned() }
    }

    #[test]
    fn the_heading_is_written_once_and_a_missing_value_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let results = results(folder.path());
        for newcomer in [json!(0.25), Value::Null] {
            results.append("takeovers", [json!({ "newcomer": newcomer })]).unwrap();
        }
        results.append("takeovers", []).unwrap();
        let text = fs::read_to_string(folder.path().join("takeovers.csv")).unwrap();
        let wanted = "beats,instances,newcomer,run,system,variant\n\
                      33.5,100,0.25,2,redis,\"beside 10 \"\"other\"\" keys\"\n\
                      33.5,100,,2,redis,\"beside 10 \"\"other\"\" keys\"\n";
        assert_eq!(text, wanted);
    }
}
