//! The kubectl plugin, run as a user runs it: kubectl finds it on the PATH.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::command::{self, Ended};

/// The name by which kubectl finds the plugin.
const PROGRAM: &str = "kubectl-beatkeeper";

pub(crate) struct Plugin {
    path: OsString,
}

impl Plugin {
    /// # Errors
    ///
    /// If the program has another name than the one by which kubectl finds it.
    pub(crate) fn at(program: PathBuf) -> Result<Self> {
        ensure!(program.ends_with(PROGRAM), "{} is not named {PROGRAM}", program.display());
        let folder = program.canonicalize().with_context(|| program.display().to_string())?;
        let folder = folder.parent().context("no folder")?.to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([folder].into_iter().chain(env::split_paths(&path)))?;
        Ok(Self { path })
    }

    /// Runs a command of the plugin, whatever its exit code is.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Ended> {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("beatkeeper").args(arguments).env("PATH", &self.path);
        command::end_of(kubectl, "").await
    }

    /// Runs a command of the plugin that must succeed, and returns its standard output.
    pub(crate) async fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let Ended { code, out, err } = self.run(arguments).await?;
        ensure!(code == Some(0), "kubectl beatkeeper {arguments:?} ends with {code:?}: {out}{err}");
        Ok(out)
    }
}
