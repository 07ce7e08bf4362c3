//! Removes what does not end with the namespaces: cgroups and the data folder.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(60);

/// The file in which the first process writes the name of its PID namespace.
pub(crate) const NAMESPACE: &str = "namespace";

/// Returns the name of the cgroup that contains all containers of the node with this folder, in each hierarchy.
pub(crate) fn cgroup(folder: &Path) -> String {
    let id = folder.file_name().unwrap_or_default().display();
    format!("beatkeeper-node-{id}")
}

/// Makes the cgroup of a node in each hierarchy, because the kubelet does not.
pub(crate) fn make_cgroups(folder: &Path) -> Result<()> {
    for place in hierarchies() {
        let cgroup = place.join(cgroup(folder));
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        // A new cgroup of version 1 has no processors and no memory until both are set.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(place.join(file)) {
                fs::write(cgroup.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Returns the roots of the cgroup hierarchies: the only one of version 2, or each of version 1.
fn hierarchies() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    if top.join("cgroup.procs").exists() {
        return vec![top];
    }
    let Ok(entries) = fs::read_dir(&top) else { return Vec::new() };
    let hierarchies = entries.flatten().map(|entry| entry.path());
    hierarchies.filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The process that started the node holds this lock while it lives.
pub(crate) const LOCK: &str = "lock";

/// Removes the remains of nodes after their sweeper was killed too, or after the machine stopped.
pub(crate) fn abandoned(nodes: &Path) {
    let Ok(folders) = fs::read_dir(nodes) else { return };
    for folder in folders.flatten().map(|entry| entry.path()) {
        // A folder without a lock is still being made.
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_ok()
            && let Err(error) = clear(&folder)
        {
            eprintln!("of an earlier node there is left: {error:#}");
        }
    }
}

/// Waits until the process at the other end of standard input ends, then removes everything.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    clear(folder)
}

/// Waits until no process is left in the node's PID namespace, and removes everything.
fn clear(folder: &Path) -> Result<()> {
    let by = Instant::now() + PATIENCE;
    while is_inhabited(folder) || !remove(folder) {
        if Instant::now() > by {
            bail!("{} or its cgroups cannot be removed", folder.display());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn is_inhabited(folder: &Path) -> bool {
    let Ok(namespace) = fs::read_to_string(folder.join(NAMESPACE)) else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes
        .flatten()
        .filter_map(|process| fs::read_link(process.path().join("ns/pid")).ok())
        .any(|its| its.as_os_str() == namespace.trim())
}

fn remove(folder: &Path) -> bool {
    let name = cgroup(folder);
    let mut gone = true;
    for cgroup in
        hierarchies().iter().map(|place| place.join(&name)).filter(|cgroup| cgroup.is_dir())
    {
        remove_cgroup(&cgroup);
        gone &= !cgroup.exists();
    }
    let _ = fs::remove_dir_all(folder);
    gone && !folder.exists()
}

/// Removes the innermost cgroup first: a cgroup can be removed only when it is empty, and its files cannot be
/// removed.
fn remove_cgroup(cgroup: &Path) {
    if let Ok(entries) = fs::read_dir(cgroup) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
