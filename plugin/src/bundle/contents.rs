//! What is in the bundle, in words: for the person who checks it before it is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// What is in the bundle.
#[derive(Debug, Default)]
pub struct Contents {
    /// How many files each folder has.
    counts: BTreeMap<String, usize>,
    /// The paths of all files. Names alone: all contents together would have no bound.
    paths: BTreeSet<String>,
    /// What could not be read, and why.
    errors: Vec<String>,
}

impl Contents {
    /// Whether a path is told for the first time.
    pub fn is_new(&mut self, path: &str) -> bool {
        self.paths.insert(path.to_owned())
    }

    /// Notes a file.
    pub fn note(&mut self, folder: &str) {
        *self.counts.entry(folder.to_owned()).or_default() += 1;
    }

    /// Notes what could not be read. A problem that is there already is not noted again.
    pub fn fail(&mut self, what: &str, why: &str) {
        let line = format!("{what}: {why}");
        if !self.errors.contains(&line) {
            self.errors.push(line);
        }
    }

    /// What could not be read, and why.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Each folder with the number of its files.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (folder, count) in &self.counts {
            writeln!(text, "{count:>7}  {folder}").expect("a string takes all text");
        }
        text
    }
}
