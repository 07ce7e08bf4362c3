//! The machine that is the only node: finds the processes of each Pod.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use procfs::process::{Process, all_processes};

use super::workload::Pod;

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
    use super::*;

    #[test]
    fn a_process_is_of_the_pod_that_its_cgroup_names() {
        let group = "/node-1/kubepods/besteffort/podaa-1/0123";
        assert!(is_of_pod(group, "aa-1"));
        assert!(!is_of_pod(group, "aa-") && !is_of_pod(group, "aa-11"));
        assert!(!is_of_pod("/user.slice", "aa-1"));
    }

    #[test]
    fn a_process_is_known_by_a_whole_argument() {
        let me = Process::myself().unwrap();
        let program = PathBuf::from(me.cmdline().unwrap().swap_remove(0));
        assert_eq!(is_started_with(&me, &program), Some(true));
        assert_eq!(is_started_with(&me, program.parent().unwrap()), Some(false));
    }
}
