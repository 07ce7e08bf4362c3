//! The location of files that outlive a process: `$XDG_CACHE_HOME/beatkeeper`, or `~/.cache/beatkeeper`.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Returns the folder that contains the binaries and the run folders.
pub(crate) fn root() -> Result<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("beatkeeper"))
        .context("neither XDG_CACHE_HOME nor HOME names a folder: set one, the control plane's binaries are kept there")
}
