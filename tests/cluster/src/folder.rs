//! Data folders: one per control plane. A folder is locked while its control plane lives, and the next control
//! plane removes it later.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;

const LOCK: &str = "lock";
/// Marks the folder of a start that failed: its logs are kept for [`KEEP_FAILED`].
const FAILED: &str = "failed";
const KEEP_FAILED: Duration = Duration::from_secs(24 * 60 * 60);

/// The data folder of this control plane. Dropping it removes the folder, unless the start failed.
pub(crate) struct RunFolder {
    path: PathBuf,
    keep: bool,
    _lock: File,
}

impl RunFolder {
    /// Removes the abandoned folders below `runs`, then makes a new one there.
    pub(crate) fn create(runs: &Path) -> Result<Self> {
        fs::create_dir_all(runs).with_context(|| format!("cannot create {}", runs.display()))?;
        // One process at a time: no process may remove a folder before its creator has locked it.
        let turn = File::create(runs.join(".turn"))?;
        turn.lock().with_context(|| format!("cannot lock {}", runs.display()))?;
        sweep(runs)?;
        // The name is short, because the path of the control socket in the folder must fit into the 108 bytes of a
        // Unix socket's address.
        let path = runs.join(format!("{:08x}", rand::rng().random::<u32>()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        restrict(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { path, keep: false, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder, so that the failure can be examined. A sweep removes it a day later.
    pub(crate) fn keep_as_failed(&mut self) {
        self.keep = fs::write(self.path.join(FAILED), "").is_ok();
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.keep {
            // The next control plane sweeps a folder that cannot be removed now.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Restricts access, because the folder contains keys to the whole control plane.
fn restrict(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot restrict {} to its owner", path.display()))
}

fn sweep(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)? {
        let path = entry?.path();
        if path.is_dir() && is_abandoned(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn is_abandoned(path: &Path) -> bool {
    let failed_lately = fs::metadata(path.join(FAILED))
        .and_then(|marker| marker.modified())
        .is_ok_and(|at| at.elapsed().unwrap_or_default() < KEEP_FAILED);
    if failed_lately {
        return false;
    }
    match File::open(path.join(LOCK)) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        // The creator died before it made the lock. It is not just about to make it, since we hold the turn.
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_folder_survives_a_sweep_and_an_unlocked_one_does_not() {
        let runs = tempfile::tempdir().unwrap();
        let alive = RunFolder::create(runs.path()).unwrap();
        let dead = runs.path().join("0badcafe");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let lockless = runs.path().join("0badbeef");
        fs::create_dir(&lockless).unwrap();

        let other = RunFolder::create(runs.path()).unwrap();

        assert!(alive.path().exists());
        assert!(other.path().exists());
        assert!(!dead.exists());
        assert!(!lockless.exists());
    }

    #[test]
    fn the_folder_of_a_failed_start_keeps_its_logs_for_a_day() {
        let runs = tempfile::tempdir().unwrap();
        let mut folder = RunFolder::create(runs.path()).unwrap();
        folder.keep_as_failed();
        let path = folder.path().to_owned();
        drop(folder);
        drop(RunFolder::create(runs.path()).unwrap());
        assert!(path.exists());

        let marker = File::options().write(true).open(path.join(FAILED)).unwrap();
        marker
            .set_modified(std::time::SystemTime::now() - KEEP_FAILED - Duration::from_secs(1))
            .unwrap();
        drop(RunFolder::create(runs.path()).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn an_orderly_end_removes_the_folder() {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(runs.path()).unwrap();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
