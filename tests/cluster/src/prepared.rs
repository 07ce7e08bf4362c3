//! What a script prepares for tests, once on each machine.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The exit code with which a script says that this machine cannot have what it prepares.
const CANNOT: i32 = 77;

/// The folder that a script has prepared. The variable names it, or else the script is run. If this machine cannot have
/// it, says that the test is not run.
///
/// # Panics
/// If the script cannot be run, or fails otherwise.
pub fn prepared(variable: &str, script: &Path, test: &str) -> Option<PathBuf> {
    if let Some(folder) = env::var_os(variable).filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let output = Command::new(script).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|why| panic!("cannot run {}: {why}", script.display()));
    if output.status.success() {
        return Some(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(CANNOT), "{why}");
    // The macros for printing would be silent in a test that passes.
    let line = format!("NOT RUN: {test}: {}\n", why.trim());
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}
