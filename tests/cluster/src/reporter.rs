//! Reports the progress of a build to the user.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::binaries::{BINARIES, Binary};
use crate::options::Progress;

/// How often a plain line says that a build still runs, so that it does not seem to hang.
const STILL: Duration = Duration::from_secs(30);

pub(crate) struct Reporter {
    quiet: bool,
}

impl Reporter {
    pub(crate) fn new(progress: Progress) -> Self {
        Self { quiet: progress == Progress::Quiet }
    }

    /// Writes to stderr directly: the test harness hides `eprintln!` while a test runs, and minutes of silence
    /// would alarm the user.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    /// Reports what is going to be built.
    pub(crate) fn announce(&self, missing: &[Binary], folder: &Path) {
        if missing.is_empty() {
            return;
        }
        let seconds: u64 = missing.iter().map(|binary| binary.typical_seconds).sum();
        self.say(&format!(
            "building {} of the control plane's {} binaries with Go, once, into {}: about {} on two cores",
            missing.len(),
            BINARIES.len(),
            folder.display(),
            rough(seconds)
        ));
    }

    pub(crate) fn begin(&self, binary: &Binary, number: usize, of: usize) -> Step {
        let what = format!(
            "{} ({number} of {of}, typically {})",
            binary.name,
            rough(binary.typical_seconds)
        );
        let bar = (!self.quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner().with_message(format!("building {what}"));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar
        });
        let plain = !self.quiet && bar.is_none();
        let step =
            Step { what, bar, plain, began: Instant::now(), said: Cell::new(Instant::now()) };
        step.line("building");
        step
    }
}

/// The build of one binary.
pub(crate) struct Step {
    what: String,
    bar: Option<ProgressBar>,
    plain: bool,
    began: Instant,
    said: Cell<Instant>,
}

impl Step {
    /// Updates the display. Call it a few times per second.
    pub(crate) fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.tick();
        }
        if self.said.get().elapsed() >= STILL {
            self.said.set(Instant::now());
            self.line("still building");
        }
    }

    pub(crate) fn done(self) {
        if let Some(bar) = &self.bar {
            let seconds = self.began.elapsed().as_secs();
            bar.finish_with_message(format!("built {} in {seconds} s", self.what));
        }
        self.line("built");
    }

    fn line(&self, verb: &str) {
        if self.plain {
            let seconds = self.began.elapsed().as_secs();
            let _ = writeln!(io::stderr(), "{verb} {}, {seconds} s", self.what);
        }
    }
}

fn rough(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min", (seconds + 30) / 60) }
}
