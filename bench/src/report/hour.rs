//! How one core keeps up with a crowd in up to an hour of virtual time.

use serde::{Deserialize, Serialize};

use super::Results;
use super::table::table;
use crate::records::Record;
use crate::statistics::{told_number, told_seconds};

/// The result for one crowd, as `core-hour` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    instances: usize,
    services: usize,
    ttl: u64,
    interval: u64,
    virtual_seconds: u64,
    beats: u64,
    nanos_per_beat: f64,
    decisions: u64,
    woken_decisions: u64,
    deaths: u64,
    prunes: u64,
    false_prunes: u64,
    late_prunes: u64,
    wall_seconds_per_virtual_second: f64,
    bytes_per_instance: f64,
}

impl Record for Line {
    const FILE: &'static str = "hour.csv";
}

/// Returns a table of all crowds.
pub fn tell(results: &Results) -> String {
    if results.hours.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = results
        .hours
        .iter()
        .map(|line| {
            [
                format!("{} in {}", line.instances, line.services),
                format!("{} s, {} s", line.ttl, line.interval),
                told_seconds(line.virtual_seconds as f64),
                line.beats.to_string(),
                format!("{} of {}", line.prunes, line.deaths),
                format!("{}, {}", line.false_prunes, line.late_prunes),
                format!("{} %", told_number(line.wall_seconds_per_virtual_second * 100.0)),
            ]
        })
        .collect();
    let headings = [
        "Instances in services",
        "ttl, interval",
        "Virtual time",
        "Beats",
        "Pruned of those who died",
        "Wrongly, late",
        "Of one core",
    ];
    "## Up to an hour of virtual time\n\n\
     The core alone, without I/O: everybody beats, some die at random and come back, and it decides as the operator does. \
     Those who died less than a ttl before the end cannot be pruned yet. The share of one core is that of taking in the \
     beats and of deciding. Made again by `make bench FULL=1 PARTS=hour`.\n\n"
        .to_owned()
        + &table(headings, &rows)
}
