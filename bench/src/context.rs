//! The environment of the measurement: the machine and the versions.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::records::{self, Record};

/// One fact about the machine or the build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The name of the fact.
    pub what: String,
    /// The value of the fact.
    pub value: String,
}

impl Record for Fact {
    const FILE: &'static str = "context.csv";
}

/// Adds the facts to a folder's results.
pub fn note(folder: &Path, mode: &str) -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let facts = [
        ("when", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("mode", mode.to_owned()),
        ("processor", format!("{cores} × {}", field(&read("/proc/cpuinfo"), "model name"))),
        ("machine", machine(&read("/proc/cpuinfo")).to_owned()),
        ("memory", gibibytes(&field(&read("/proc/meminfo"), "MemTotal"))),
        ("disk", filesystem(&std::env::temp_dir())),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("system", field(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME")),
        (
            "load before",
            read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        ),
        ("compiler", said_by("rustc", "--version")),
        ("commit", said_by("git", "describe --always --dirty")),
    ];
    let fact = |(what, value): (&str, String)| Fact { what: what.to_owned(), value };
    records::append(folder, &facts.map(fact))
}

/// Returns whether the machine is virtual, from the CPU's flags.
fn machine(cpuinfo: &str) -> &'static str {
    match field(cpuinfo, "flags").as_str() {
        "unknown" => "unknown",
        flags if flags.split(' ').any(|flag| flag == "hypervisor") => "virtual",
        _ => "no hypervisor",
    }
}

/// Returns the filesystem on which the stores keep their data.
fn filesystem(folder: &Path) -> String {
    let said = said_by("df", &format!("--output=fstype,source {}", folder.display()));
    let line = said.lines().last().unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" on ")
}

/// Returns the value after a name and a colon.
fn field(text: &str, name: &str) -> String {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.unwrap_or("unknown").trim().trim_matches('"').to_owned()
}

/// Converts a size that the kernel gives in kB.
fn gibibytes(kilobytes: &str) -> String {
    let number = kilobytes.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    number.map_or_else(|| kilobytes.to_owned(), |number| format!("{:.1} GiB", number / 1_048_576.0))
}

fn said_by(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let said = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    said.map_or_else(|| "unknown".to_owned(), |said| said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_gibibytes() {
        assert_eq!(gibibytes("24684092 kB"), "23.5 GiB");
        assert_eq!(gibibytes("unknown"), "unknown");
    }

    #[test]
    fn a_machine_is_virtual_where_its_processor_says_so() {
        assert_eq!(machine("flags\t\t: fpu hypervisor sse\n"), "virtual");
        assert_eq!(machine("flags\t\t: fpu sse\n"), "no hypervisor");
        assert_eq!(machine("Features\t: fp asimd\n"), "unknown");
    }

    #[test]
    fn a_field_is_read_however_it_is_spaced_and_quoted() {
        assert_eq!(field("a: 1\nmodel name\t: Some CPU\n", "model name"), "Some CPU");
        assert_eq!(field("NAME:\"x\"\nPRETTY_NAME:\"Some OS 12\"", "PRETTY_NAME"), "Some OS 12");
        assert_eq!(field("", "MemTotal"), "unknown");
    }
}
