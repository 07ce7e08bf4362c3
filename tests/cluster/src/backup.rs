//! Copies etcd's data, and returns a control plane to a copy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::plane::ControlPlane;

/// A copy of all data of a control plane's etcd. The copy is deleted with the control plane.
#[derive(Debug)]
pub struct Backup(PathBuf);

impl ControlPlane {
    /// Copies etcd's data while etcd is suspended; all other processes continue.
    ///
    /// # Errors
    /// If the data cannot be copied, or etcd does not run.
    pub async fn back_up(&self) -> Result<Backup> {
        let mut folders = (1..).map(|n| self.data_folder().join(format!("backup-{n}")));
        let copy = folders.find(|folder| !folder.exists()).expect("there are numbers left");
        self.etcd().suspend().await?;
        let copied = copy_folder(&self.etcd_data(), &copy);
        self.etcd().resume().await?;
        copied?;
        Ok(Backup(copy))
    }

    /// Stops the API server and etcd, replaces etcd's data with a copy, and starts both again. Returns once both
    /// are ready. The other processes are not informed.
    ///
    /// # Errors
    /// If a process cannot be stopped or started, or the data cannot be replaced.
    pub async fn restore(&self, backup: &Backup) -> Result<()> {
        self.api_server().kill().await?;
        self.etcd().kill().await?;
        let data = self.etcd_data();
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        copy_folder(&backup.0, &data)?;
        self.etcd().start().await?;
        self.api_server().start().await
    }

    fn etcd_data(&self) -> PathBuf {
        self.data_folder().join("etcd")
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(doing)?;
    for entry in fs::read_dir(from).with_context(doing)? {
        let entry = entry.with_context(doing)?;
        let target = to.join(entry.file_name());
        if entry.file_type().with_context(doing)?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(doing)?;
        }
    }
    Ok(())
}
