//! The measurements, for the end of the story.

use std::io;
use std::time::Instant;

use crate::observer::Both;
use crate::output::Output;
use crate::table::Table;

/// Each event, how long each object took to show it, and the moment from which this time is counted.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 4]>,
}

impl Report {
    /// Adds a measurement.
    pub fn add(&mut self, what: &str, from: Instant, seen: Both, counted_from: &str) {
        self.rows.push([
            what.to_owned(),
            milliseconds(from, seen.slices),
            milliseconds(from, seen.endpoints),
            counted_from.to_owned(),
        ]);
    }

    /// Prints all measurements. `slices` and `endpoints` are the numbers of states of both that were seen.
    pub fn print(self, out: &Output, slices: usize, endpoints: usize) -> io::Result<()> {
        out.heading("What was measured")?;
        let mut table = Table::new(["EVENT", "ENDPOINTSLICES", "ENDPOINTS", "COUNTED FROM"]);
        for row in self.rows {
            table.row(row);
        }
        out.table(&table)?;
        out.say(&format!(
            "The observer saw {slices} states of the EndpointSlices and {endpoints} of the Endpoints, \
             and no beating instance was missing in any of them."
        ))?;
        out.say(
            "All times are the observer's: it watches Leases, EndpointSlices and Endpoints as any \
             client may, and notes on the monotonic clock when each change reaches it.",
        )
    }
}

/// Returns the time from one moment to another, for people to read.
pub fn milliseconds(from: Instant, to: Instant) -> String {
    let seconds = match to.checked_duration_since(from) {
        Some(later) => later.as_secs_f64(),
        None => -from.duration_since(to).as_secs_f64(),
    };
    format!("{:.1} ms", seconds * 1000.0)
}
