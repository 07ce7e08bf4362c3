//! Builds the missing binaries, one after the other. A reader never sees an incomplete binary.
//!
//! Each binary is built under another name in its final folder, and renamed when it is complete. A lock on the
//! folder prevents two builds from doing the same work. The kernel releases the lock when its holder ends, however
//! it ends.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries::{Binary, missing};
use crate::options::Progress;
use crate::process::die_with_this_thread;
use crate::reporter::Reporter;

/// The scratch folder below the target. It contains everything that an interrupted build leaves.
const SCRATCH: &str = ".build";
const LOCK: &str = ".lock";

/// Builds the binaries that `folder` lacks. `command` makes the command that builds one binary, with a scratch
/// folder, into a file.
pub(crate) fn build_missing(
    folder: &Path,
    progress: Progress,
    command: impl Fn(&Binary, &Path, &Path) -> Result<Command>,
) -> Result<()> {
    let reporter = Reporter::new(progress);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _turn = take_turn(folder, &reporter)?;

    // The previous holder of the lock may have built all binaries.
    let missing = missing(folder);
    let scratch = folder.join(SCRATCH);
    reporter.announce(&missing, folder);
    for (index, binary) in missing.iter().enumerate() {
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let to = scratch.join(binary.name);
        let step = reporter.begin(binary, index + 1, missing.len());
        run(command(binary, &scratch, &to)?, &scratch, &step)
            .with_context(|| format!("cannot build {}", binary.name))?;
        fs::rename(&to, folder.join(binary.name))
            .with_context(|| format!("the build of {} left no file", binary.name))?;
        step.done();
    }
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}

fn take_turn(folder: &Path, reporter: &Reporter) -> Result<File> {
    let path = folder.join(LOCK);
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            reporter.say(&format!(
                "waiting for another build of the control plane in {} …",
                folder.display()
            ));
            lock.lock()?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(lock)
}

/// Runs one build to its end. The output of the build is shown if it fails.
fn run(mut command: Command, scratch: &Path, step: &crate::reporter::Step) -> Result<()> {
    let log = scratch.join("output");
    let output = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // The child stays in our process group, so that Ctrl-C also ends it.
    let mut child = die_with_this_thread(&mut command, false)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        step.tick();
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("{status}\n{}", said.trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replacement for `go build`: `script` runs with the output file as `$1`.
    fn shell(script: &'static str) -> impl Fn(&Binary, &Path, &Path) -> Result<Command> {
        move |_, _, to| {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(to);
            Ok(command)
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }

    const ALL: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];

    #[test]
    fn an_interrupted_build_leaves_nothing_half_made() {
        let folder = tempfile::tempdir().unwrap();
        let interrupted = shell("printf half > \"$1\"; kill -9 $$");
        let error = build_missing(folder.path(), Progress::Quiet, interrupted).unwrap_err();
        assert!(format!("{error:#}").contains("cannot build etcd"));
        assert!(files(folder.path()).is_empty());

        build_missing(folder.path(), Progress::Quiet, shell("printf whole > \"$1\"")).unwrap();
        assert_eq!(files(folder.path()), ALL);
        for name in ALL {
            let content = fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(content, "whole");
        }
        assert!(!folder.path().join(SCRATCH).exists());
    }

    #[test]
    fn a_build_goes_on_where_an_earlier_one_was_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("etcd"), "from the earlier one").unwrap();
        build_missing(folder.path(), Progress::Quiet, shell("printf new > \"$1\"")).unwrap();
        let etcd = fs::read_to_string(folder.path().join("etcd")).unwrap();
        assert_eq!(etcd, "from the earlier one");
        assert_eq!(files(folder.path()), ALL);
    }

    #[test]
    fn two_builds_at_once_build_each_binary_once() {
        let folder = tempfile::tempdir().unwrap();
        let slow = "sleep 0.05; echo built >> \"$(dirname \"$1\")/../.log\"; printf whole > \"$1\"";
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| build_missing(folder.path(), Progress::Quiet, shell(slow)).unwrap());
            }
        });
        let log = fs::read_to_string(folder.path().join(".log")).unwrap();
        assert_eq!(log.lines().count(), 4);
    }

    #[test]
    fn a_failed_build_shows_what_the_compiler_said() {
        let folder = tempfile::tempdir().unwrap();
        let failing = shell("echo no such package >&2; exit 1");
        let error = build_missing(folder.path(), Progress::Quiet, failing).unwrap_err();
        assert!(format!("{error:#}").contains("no such package"));
    }
}
