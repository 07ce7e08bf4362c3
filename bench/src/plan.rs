//! What the measurements of instances have in common.

use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::results::{Results, Run};
use crate::system::{Setup, System};

/// The size and the length of a measurement, and where its results go.
#[derive(Debug, Args)]
pub struct Plan {
    /// The folder that the results are added to.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How many instances beat.
    #[arg(long, default_value_t = 100)]
    pub instances: u32,
    /// Seconds of silence after which one counts as dead.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub ttl: Duration,
    /// Seconds between two beats.
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub interval: Duration,
    /// Seconds before anything is measured, while all beat.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub warm_up: Duration,
    /// Seconds of steady state in which the use of processor and memory is measured.
    #[arg(long, default_value = "20", value_parser = seconds)]
    pub steady: Duration,
}

impl Plan {
    /// Returns the usual setup of a system, with its data in a folder.
    pub fn setup(&self, system: System, data: &Path) -> Setup {
        let Plan { ttl, interval, .. } = *self;
        Setup { system, ttl, interval, services: 1, ballast: 0, data: data.to_owned() }
    }

    /// Returns where the results of a run go.
    pub fn results(&self, system: System, variant: String, run: u32) -> Results {
        let beats = f64::from(self.instances) / self.interval.as_secs_f64();
        let run = Run { system, variant, instances: self.instances, beats, run };
        Results { run, out: self.out.clone() }
    }
}

/// Reads a number of seconds from the command line.
pub fn seconds(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_secs)
}
