//! The machine that is the only node: finds the processes of each Pod, and suspends them.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use procfs::process::{Process, all_processes};

use super::workload::Pod;
use crate::process;

/// Suspended processes. They are resumed when this value is dropped.
pub struct Stopped {
    /// When the processes were suspended.
    pub since: Instant,
    processes: Vec<u32>,
}

impl Stopped {
    /// Suspends processes.
    pub fn now(processes: Vec<u32>) -> Result<Self> {
        let mut stopped = Self { since: Instant::now(), processes: Vec::new() };
        for process in processes {
            process::freeze(process, true)?;
            stopped.processes.push(process);
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    /// The first process is resumed last: a kubelet sees its Pods again when they run.
    fn drop(&mut self) {
        for &process in self.processes.iter().rev() {
            let _ = process::freeze(process, false);
        }
    }
}

/// Returns the process of the kubelet.
///
/// # Errors
/// If this process does not run in a node of tests/node. This prevents stopping another kubelet by accident.
pub fn kubelet() -> Result<u32> {
    let folder = env::var_os("BEATKEEPER_NODE")
        .context("there is no node of tests/node here: run this by `beatkeeper-node exec`")?;
    let config = PathBuf::from(folder).join("kubelet.json");
    let kubelets = processes(|process| is_started_with(process, &config))?;
    ensure!(kubelets.len() == 1, "{} kubelets run with {}", kubelets.len(), config.display());
    Ok(kubelets[0])
}

/// Returns the processes of a Pod.
pub fn processes_of(pod: &Pod) -> Result<Vec<u32>> {
    let processes = processes(|process| {
        let groups = process.cgroups().ok()?;
        Some(groups.0.iter().any(|group| is_of_pod(&group.pathname, &pod.uid)))
    })?;
    ensure!(!processes.is_empty(), "no process runs for Pod {}", pod.name);
    Ok(processes)
}

/// Returns the processes that fulfil a condition. A process that has ended meanwhile is skipped.
fn processes(is: impl Fn(&Process) -> Option<bool>) -> Result<Vec<u32>> {
    let running = all_processes()?.flatten().filter(|process| is(process) == Some(true));
    Ok(running.filter_map(|process| u32::try_from(process.pid).ok()).collect())
}

fn is_started_with(process: &Process, argument: &Path) -> Option<bool> {
    Some(process.cmdline().ok()?.iter().any(|it| Path::new(it) == argument))
}

/// Whether a cgroup belongs to the Pod, by the kubelet's cgroup names for the driver cgroupfs.
fn is_of_pod(group: &str, uid: &str) -> bool {
    group.split('/').any(|name| name.strip_prefix("pod") == Some(uid))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_of_the_pod_that_its_cgroup_names() {
        let group = "/node-1/kubepods/besteffort/podaa-1/0123";
        assert!(is_of_pod(group, "aa-1"));
        assert!(!is_of_pod(group, "aa-") && !is_of_pod(group, "aa-11"));
        assert!(!is_of_pod("/user.slice", "aa-1"));
    }

    /// Runs something with a process, which is waiting for its stdin.
    fn with_child(run: impl FnOnce(&Process)) {
        let mut child: Child = Command::new("cat").arg("-").stdin(Stdio::piped()).spawn().unwrap();
        run(&Process::new(child.id() as i32).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_known_by_a_whole_argument() {
        with_child(|process| {
            // Until it executes, the child has the arguments of this process.
            while process.cmdline().unwrap().first().is_none_or(|it| it != "cat") {
                std::thread::yield_now();
            }
            assert_eq!(is_started_with(process, Path::new("-")), Some(true));
            assert_eq!(is_started_with(process, Path::new("c")), Some(false));
        });
    }

    #[test]
    fn stopped_processes_are_resumed_when_the_value_is_dropped() {
        with_child(|process| {
            let wait_for = |stopped: bool| {
                let began = Instant::now();
                while (process.stat().unwrap().state == 'T') != stopped {
                    assert!(began.elapsed().as_secs() < 10, "{:?}", process.stat());
                    std::thread::yield_now();
                }
            };
            let stopped = Stopped::now(vec![process.pid as u32]).unwrap();
            wait_for(true);
            drop(stopped);
            wait_for(false);
        });
    }
}
