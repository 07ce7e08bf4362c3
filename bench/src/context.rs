//! The environment of the measurement: the machine and the versions.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use procfs::{CpuInfo, Current, LoadAverage, Meminfo};
use serde_json::json;

use crate::results;

/// Adds the facts to a folder's results.
pub fn note(folder: &Path, mode: &str) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = CpuInfo::current()?;
    let machine = match processor.flags(0) {
        None => "unknown",
        Some(flags) if flags.contains(&"hypervisor") => "virtual",
        Some(_) => "no hypervisor",
    };
    let LoadAverage { one, five, fifteen, .. } = LoadAverage::current()?;
    let df = said_by("df", &format!("--output=fstype,source {}", std::env::temp_dir().display()));
    let disk: Vec<&str> = df.lines().last().unwrap_or_default().split_whitespace().collect();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let facts = [
        ("when", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("mode", mode.to_owned()),
        ("processor", format!("{cores} × {}", processor.model_name(0).unwrap_or("unknown"))),
        ("machine", machine.to_owned()),
        ("memory", format!("{:.1} GiB", Meminfo::current()?.mem_total as f64 / f64::from(1 << 30))),
        ("disk", disk.join(" on ")),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("system", system.unwrap_or("unknown").trim_matches('"').to_owned()),
        ("load before", format!("{one:.2} {five:.2} {fifteen:.2}")),
        ("compiler", said_by("rustc", "--version")),
        ("commit", said_by("git", "describe --always --dirty")),
    ];
    let part = folder.file_name().context("a part has a folder")?.to_string_lossy();
    let line = |(what, value)| json!({ "part": part, "what": what, "value": value });
    results::append(folder, "context", &facts.map(line))
}

fn said_by(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let said = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    said.map_or_else(|| "unknown".to_owned(), |said| said.trim().to_owned())
}
