//! The memory and processor time of this process, under the names that all programs use for them. They are read at each
//! scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::catalogue::Described;

const MEMORY: &str = "process_resident_memory";
const MEMORY_HELP: &str = "Resident memory of this process";
const CPU: &str = "process_cpu";
const CPU_HELP: &str = "User and system time of this process";

/// A registry with these metrics. It has no prefix.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Usage));
    registry
}

/// The descriptions for the documentation.
pub(crate) fn described() -> [Described; 2] {
    let described = |name: &str, kind: MetricType, help| Described {
        name: name.to_owned(),
        kind: kind.as_str().to_owned(),
        labels: &[],
        help,
    };
    [
        described("process_resident_memory_bytes", MetricType::Gauge, MEMORY_HELP),
        described("process_cpu_seconds_total", MetricType::Counter, CPU_HELP),
    ]
}

#[derive(Debug)]
struct Usage;

impl Collector for Usage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // The registry adds a full stop to help texts, but not to those of a collector.
        let (memory_help, cpu_help) = (format!("{MEMORY_HELP}."), format!("{CPU_HELP}."));
        if let Some(bytes) = resident_bytes() {
            let unit = Some(&Unit::Bytes);
            let metric =
                encoder.encode_descriptor(MEMORY, &memory_help, unit, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(metric)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let unit = Some(&Unit::Seconds);
            let metric = encoder.encode_descriptor(CPU, &cpu_help, unit, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        Ok(())
    }
}

/// `None` where there is no /proc, such as on macOS.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The unit of the times in /proc, which is the same on all architectures that Linux gives to programs.
const TICKS_PER_SECOND: f64 = 100.0;

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may contain spaces. The fields after it begin with the third, the state.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u32>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(f64::from(user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_processor_time_grow_with_what_this_process_uses() {
        let (mut grown, time) = (Vec::new(), cpu_seconds().expect("Linux"));
        let block = loop {
            let memory = resident_bytes().expect("Linux");
            let block = std::hint::black_box(vec![1_u8; 64 << 20]);
            grown.push((memory, resident_bytes().expect("Linux")));
            if grown.last().is_some_and(|(before, after)| *after > *before + (48 << 20)) {
                break block;
            }
            // Other tests of this process may have given memory back meanwhile.
            assert!(grown.len() < 10, "{grown:?}");
        };
        // This ends only if the time grows.
        while cpu_seconds().expect("Linux") < time + 0.05 {
            std::hint::black_box(block.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
    }
}
