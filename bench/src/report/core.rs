//! The cost of the core, from criterion's samples and the counted bytes.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::table::{grouped, table};
use super::{Plots, Results, plot};
use crate::records::Record;
use crate::statistics::{quantile, sorted, told_number, told_seconds};

/// A sample as criterion writes it: nanoseconds for a number of iterations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    group: String,
    function: Option<String>,
    value: Option<String>,
    throughput_num: Option<f64>,
    sample_measured_value: f64,
    unit: String,
    iteration_count: f64,
}

impl Record for Sample {
    const FILE: &'static str = "core.csv";
}

impl Sample {
    /// Returns the seconds of one iteration.
    fn seconds(&self) -> f64 {
        self.sample_measured_value / self.iteration_count / 1e9
    }

    /// Returns the number of elements in one iteration.
    fn elements(&self) -> f64 {
        self.throughput_num.unwrap_or(1.0)
    }

    fn size(&self) -> f64 {
        self.value.as_deref().and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }
}

/// The memory of an index of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    instances: usize,
    services: usize,
    per_service: usize,
    bytes: usize,
    bytes_per_instance: f64,
}

impl Record for Memory {
    const FILE: &'static str = "memory.csv";
}

impl Memory {
    /// Returns the bytes per instance.
    pub fn per_instance(&self) -> f64 {
        self.bytes_per_instance
    }
}

/// Returns the seconds that a beat costs, in ascending order, for each size of the index.
pub fn beat_costs(samples: &[Sample]) -> Vec<Vec<f64>> {
    let beats = samples.iter().filter(|sample| sample.group == "take_in_beats");
    let key = |sample: &&Sample| (sample.size().to_bits(), sample.function.clone());
    grouped(beats, key)
        .into_values()
        .map(|size| sorted(size.iter().map(|sample| sample.seconds() / sample.elements())))
        .collect()
}

/// Returns the tables and distributions.
pub fn tell(results: &Results, plots: &Plots) -> Result<String> {
    if results.samples.is_empty() && results.memory.is_empty() {
        return Ok(String::new());
    }
    let mut text = String::from(
        "## The core\n\n\
         On one core and without any I/O. A beat is decoded from a line of the watch (`decode_a_beat`), read \
         (`read_a_beat`) and taken into the index (`take_in_beats`): all three together are what it costs. A plan or a \
         decision is made for one service. Quantiles are over the samples of one run. Made again by \
         `make bench FULL=1 PARTS=core`.\n\n",
    );
    let key = |sample: &&Sample| {
        (sample.group.clone(), sample.size().to_bits(), sample.function.clone().unwrap_or_default())
    };
    let rows: Vec<_> = grouped(&results.samples, key)
        .into_iter()
        .map(|((group, size, function), samples)| {
            let whole = sorted(samples.iter().map(|sample| sample.seconds()));
            let each = sorted(samples.iter().map(|sample| sample.seconds() / sample.elements()));
            let at =
                |all: &[f64], share| quantile(all, share).map_or_else(String::new, told_seconds);
            let median = quantile(&each, 0.5).unwrap_or(f64::NAN);
            [
                group,
                match f64::from_bits(size) {
                    0.0 => function.replace('_', " "),
                    size => format!("{} {}", told_number(size), function.replace('_', " ")),
                },
                at(&whole, 0.5),
                at(&each, 0.5),
                format!("{}–{}", at(&each, 0.05), at(&each, 0.95)),
                told_number(1.0 / median),
            ]
        })
        .collect();
    text += &table(["What", "Of", "In all, p50", "Each, p50", "p5–p95", "Each a second"], &rows);
    let beats = results.samples.iter().filter(|sample| sample.group == "take_in_beats");
    let lines: Vec<plot::Line> = grouped(beats, key)
        .into_iter()
        .map(|((_, size, function), samples)| plot::Line {
            name: format!("{} in {}", f64::from_bits(size), function.replace('_', " ")),
            values: sorted(samples.iter().map(|sample| sample.seconds() / sample.elements())),
        })
        .collect();
    if !lines.is_empty() {
        text += &plots.draw(
            "core-beats",
            "The cost of a beat: shares of the samples",
            "time",
            &lines,
        )?;
    }
    let rows: Vec<_> = results
        .memory
        .iter()
        .map(|line| {
            [
                line.instances.to_string(),
                line.services.to_string(),
                told_number(line.bytes_per_instance),
                told_number(line.bytes as f64 / f64::from(1 << 20)) + " MiB",
            ]
        })
        .collect();
    text += &table(["Instances", "Services", "Bytes an instance", "In all"], &rows);
    Ok(text)
}
