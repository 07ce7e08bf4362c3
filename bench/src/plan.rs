//! What the measurements of instances have in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::results::Run;
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
    #[arg(long, default_value_t = 10)]
    pub ttl: u64,
    /// Seconds between two beats.
    #[arg(long, default_value_t = 3)]
    pub interval: u64,
    /// Seconds before anything is measured, while all beat.
    #[arg(long, default_value_t = 10)]
    pub warm_up: u64,
    /// Seconds of steady state in which the use of processor and memory is measured.
    #[arg(long, default_value_t = 20)]
    pub steady: u64,
}

impl Plan {
    /// Returns the usual setup, with one service.
    pub fn setup(&self, data: PathBuf) -> Setup {
        let [ttl, interval] = [self.ttl, self.interval].map(Duration::from_secs);
        Setup { ttl, interval, data, peers: None, services: 1, ballast: 0 }
    }

    /// Returns what identifies a run.
    pub fn run(&self, system: System, variant: String, run: u32) -> Run {
        let beats = f64::from(self.instances) / self.interval as f64;
        Run { system, variant, instances: self.instances, beats, run }
    }
}
