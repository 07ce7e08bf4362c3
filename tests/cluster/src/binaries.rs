//! Finds the binaries: in the folder that `KUBEBUILDER_ASSETS` names, or in the cache, where the first use builds
//! them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::options::Progress;
use crate::toolchain;
use crate::{builder, cache};

/// The version of kube-apiserver, kube-controller-manager and kubectl that is built.
pub const KUBERNETES_VERSION: &str = "1.37.1";
/// The version of etcd that is built.
pub const ETCD_VERSION: &str = "3.7.3";

const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

pub(crate) const KUBERNETES_MOD: &str = include_str!("../go/kubernetes/go.mod");
pub(crate) const KUBERNETES_SUM: &str = include_str!("../go/kubernetes/go.sum");
pub(crate) const ETCD_MOD: &str = include_str!("../go/etcd/go.mod");
pub(crate) const ETCD_SUM: &str = include_str!("../go/etcd/go.sum");

/// One binary and the Go package behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binary {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) module: Module,
    /// Build time on two cores with an empty Go cache. It is shown to users, so that they know how long to wait.
    pub(crate) typical_seconds: u64,
}

/// Which of the two pinned module graphs a package is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    Kubernetes,
    Etcd,
}

pub(crate) const BINARIES: [Binary; 4] = [
    Binary {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        module: Module::Etcd,
        typical_seconds: 25,
    },
    Binary {
        name: "kube-apiserver",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        module: Module::Kubernetes,
        typical_seconds: 235,
    },
    Binary {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        module: Module::Kubernetes,
        typical_seconds: 80,
    },
    Binary {
        name: "kubectl",
        package: "k8s.io/kubernetes/cmd/kubectl",
        module: Module::Kubernetes,
        typical_seconds: 25,
    },
];

/// Returns the folder with all binaries, when they are there: given, cached or built now.
///
/// # Errors
/// If `KUBEBUILDER_ASSETS` lacks a binary, or a binary cannot be built. The error says what to do.
pub fn folder(progress: Progress) -> Result<PathBuf> {
    if let Some(given) = env::var_os(ASSETS_VARIABLE).filter(|folder| !folder.is_empty()) {
        let given = std::path::absolute(given)?;
        check_given(&given)?;
        return Ok(given);
    }
    let folder = cache::root()?
        .join(format!("k8s-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}-{}", fingerprint()));
    if missing(&folder).is_empty() {
        return Ok(folder);
    }
    builder::build_missing(&folder, progress, toolchain::go_build)?;
    Ok(folder)
}

fn check_given(folder: &Path) -> Result<()> {
    let missing = missing(folder);
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|binary| binary.name).collect();
        bail!(
            "{ASSETS_VARIABLE} names {}, which lacks {}. envtest's folders come without kube-controller-manager: \
             add what is missing, of the same version, or unset {ASSETS_VARIABLE}, and all of it is built from source",
            folder.display(),
            names.join(", ")
        );
    }
    Ok(())
}

/// Returns the binaries that are missing in `folder`.
pub(crate) fn missing(folder: &Path) -> Vec<Binary> {
    BINARIES.into_iter().filter(|binary| !folder.join(binary.name).is_file()).collect()
}

/// Returns a hash that changes with every input of a build, so that no folder mixes two builds. The hash is FNV-1a,
/// because nothing here is secret, and the standard library's hasher may change with the compiler.
fn fingerprint() -> String {
    let inputs = [KUBERNETES_MOD, KUBERNETES_SUM, ETCD_MOD, ETCD_SUM];
    let recipes = BINARIES.map(|binary| toolchain::arguments(&binary, Path::new("")).join(" "));
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let bytes = inputs
        .iter()
        .copied()
        .chain(recipes.iter().map(String::as_str))
        .flat_map(|text| text.bytes().chain([0]));
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{:012x}", hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_folder_without_the_controller_manager_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["etcd", "kube-apiserver", "kubectl"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let error = check_given(folder.path()).unwrap_err().to_string();
        assert!(error.contains("lacks kube-controller-manager."), "{error}");
        assert!(error.contains("unset KUBEBUILDER_ASSETS"), "{error}");
    }

    #[test]
    fn the_versions_named_are_the_versions_pinned() {
        let kubernetes = format!("k8s.io/kubernetes v{KUBERNETES_VERSION}");
        assert!(KUBERNETES_MOD.contains(&kubernetes));
        let etcd = format!("go.etcd.io/etcd/server/v3 v{ETCD_VERSION}");
        assert!(ETCD_MOD.contains(&etcd));
    }
}
