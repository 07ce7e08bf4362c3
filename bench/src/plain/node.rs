//! The machine that is the only node: finds the processes of each Pod, and suspends them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::stage::Pod;
use crate::clock::Moment;
use crate::process;

/// A node of tests/node, within its namespaces.
pub struct Node {
    kubelet: u32,
}

impl Node {
    /// Finds the node.
    ///
    /// # Errors
    /// If this process does not run in such a node. This prevents stopping another kubelet by accident.
    pub fn find() -> Result<Self> {
        let folder = env::var_os("BEATKEEPER_NODE")
            .context("there is no node of tests/node here: run this by `beatkeeper-node exec`")?;
        let config = PathBuf::from(folder).join("kubelet.json");
        let kubelet = processes("cmdline", |line| is_started_with(line, &config))?;
        let [kubelet] = kubelet[..] else {
            anyhow::bail!("{} kubelets run with {}", kubelet.len(), config.display())
        };
        Ok(Self { kubelet })
    }

    /// Makes a Pod hang.
    pub fn stop_pod(&self, pod: &Pod) -> Result<Stopped> {
        Stopped::now(processes_of(pod)?)
    }

    /// Makes the node die with its Pods: no process is left that could report their state.
    pub fn stop(&self, pods: &[Pod]) -> Result<Stopped> {
        let mut all = vec![self.kubelet];
        for pod in pods {
            all.extend(processes_of(pod)?);
        }
        Stopped::now(all)
    }
}

/// Suspended processes. They are resumed when this value is dropped.
pub struct Stopped {
    /// When the processes were suspended.
    pub since: Moment,
    processes: Vec<u32>,
}

impl Stopped {
    fn now(processes: Vec<u32>) -> Result<Self> {
        let mut stopped = Self { since: Moment::now(), processes: Vec::new() };
        for process in processes {
            process::freeze(process, true)?;
            stopped.processes.push(process);
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    /// The kubelet is resumed last, so that its Pods are running when it sees them again.
    fn drop(&mut self) {
        for &process in self.processes.iter().rev() {
            let _ = process::freeze(process, false);
        }
    }
}

fn processes_of(pod: &Pod) -> Result<Vec<u32>> {
    let processes = processes("cgroup", |cgroups| is_of_pod(cgroups, &pod.uid))?;
    ensure!(!processes.is_empty(), "no process runs for Pod {}", pod.name);
    Ok(processes)
}

/// Returns the processes for which a file in their folder below /proc fulfils a condition.
fn processes(file: &str, is: impl Fn(&str) -> bool) -> Result<Vec<u32>> {
    let ids = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let id = entry.file_name().to_string_lossy().parse().ok()?;
        // A process that has ended meanwhile is skipped.
        is(&fs::read_to_string(entry.path().join(file)).ok()?).then_some(id)
    });
    Ok(ids.collect())
}

fn is_started_with(command_line: &str, argument: &Path) -> bool {
    command_line.split_terminator('\0').any(|it| Path::new(it) == argument)
}

/// Whether a process with these cgroups runs in the Pod, by the kubelet's cgroup names for the driver cgroupfs.
fn is_of_pod(cgroups: &str, uid: &str) -> bool {
    cgroups.lines().any(|line| line.split('/').any(|name| name.strip_prefix("pod") == Some(uid)))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_of_the_pod_whose_uid_its_cgroup_has() {
        let cgroups = "4:memory:/node-1/kubepods/besteffort/podaa-1/0123\n0::/\n";
        assert!(is_of_pod(cgroups, "aa-1"));
        assert!(!is_of_pod(cgroups, "aa-"));
        assert!(!is_of_pod(cgroups, "aa-11"));
        assert!(!is_of_pod("0::/user.slice\n", "aa-1"));
    }

    #[test]
    fn a_kubelet_is_known_by_the_whole_path_of_its_configuration() {
        let line = "/usr/bin/kubelet\0--config\0/nodes/1/kubelet.json\0";
        assert!(is_started_with(line, Path::new("/nodes/1/kubelet.json")));
        assert!(!is_started_with(line, Path::new("/nodes/2/kubelet.json")));
        assert!(!is_started_with(line, Path::new("kubelet.json")));
    }

    #[test]
    fn a_suspended_process_continues_when_its_handle_is_dropped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        let wait_for = |is: &dyn Fn(char) -> bool| {
            let began = std::time::Instant::now();
            while !is(state()) {
                assert!(began.elapsed().as_secs() < 10, "it is {}", state());
                std::thread::yield_now();
            }
        };
        let stopped = Stopped::now(vec![child.id()]).unwrap();
        wait_for(&|state| state == 'T');
        drop(stopped);
        wait_for(&|state| state != 'T');
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
