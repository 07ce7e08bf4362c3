//! The binaries of a node, built once into the user's cache.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use beatkeeper_cluster::{KUBERNETES_VERSION, Progress, die_with_this_thread};

const MODULES: [(&str, &str, &str); 3] = [
    (
        "kubernetes",
        include_str!("../go/kubernetes/go.mod"),
        include_str!("../go/kubernetes/go.sum"),
    ),
    ("runtime", include_str!("../go/runtime/go.mod"), include_str!("../go/runtime/go.sum")),
    ("coredns", include_str!("../go/coredns/go.mod"), include_str!("../go/coredns/go.sum")),
];

/// Name, module, package, and the typical build time in seconds on two cores, if the control plane's packages are
/// built.
const BINARIES: [(&str, usize, &str, u32); 10] = [
    ("kubelet", 0, "k8s.io/kubernetes/cmd/kubelet", 30),
    ("kube-scheduler", 0, "k8s.io/kubernetes/cmd/kube-scheduler", 10),
    ("kube-proxy", 0, "k8s.io/kubernetes/cmd/kube-proxy", 15),
    ("containerd", 1, "github.com/containerd/containerd/v2/cmd/containerd", 90),
    (
        "containerd-shim-runc-v2",
        1,
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        5,
    ),
    ("ctr", 1, "github.com/containerd/containerd/v2/cmd/ctr", 10),
    ("bridge", 1, "github.com/containernetworking/plugins/plugins/main/bridge", 3),
    ("loopback", 1, "github.com/containernetworking/plugins/plugins/main/loopback", 1),
    ("host-local", 1, "github.com/containernetworking/plugins/plugins/ipam/host-local", 1),
    ("coredns", 2, "github.com/coredns/coredns", 120),
];

/// Returns `$XDG_CACHE_HOME/beatkeeper`, or `~/.cache/beatkeeper`: the same as for the control plane.
pub(crate) fn cache() -> Result<PathBuf> {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .filter(|cache| cache.is_absolute())
        .map(|cache| cache.join("beatkeeper"))
        .context("neither XDG_CACHE_HOME nor HOME names a folder")
}

/// Returns the folder with the node's own binaries and, in `images`, its images. Builds what is missing.
pub(crate) fn build() -> Result<PathBuf> {
    beatkeeper_cluster::binaries(Progress::Terminal)?;
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock()?;
    for (name, module, package, seconds) in BINARIES {
        if !folder.join(name).is_file() {
            go_build(&folder, name, MODULES[module], package, seconds)?;
        }
    }
    images(&folder)?;
    Ok(folder)
}

/// Returns the folder, whose name is a hash of all inputs, so that no folder mixes two versions. The hash is
/// FNV-1a, because nothing here is secret.
pub(crate) fn folder() -> Result<PathBuf> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let names = BINARIES.iter().flat_map(|(name, _, package, _)| [*name, *package]);
    for byte in
        MODULES.iter().flat_map(|module| [module.1, module.2]).chain(names).flat_map(str::bytes)
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Ok(cache()?.join(format!("node-{KUBERNETES_VERSION}-{:012x}", hash >> 16)))
}

fn go_build(
    folder: &Path,
    name: &str,
    (module, go_mod, go_sum): (&str, &str, &str),
    package: &str,
    seconds: u32,
) -> Result<()> {
    eprintln!("building {name}, once, typically {seconds} s");
    let began = Instant::now();
    // All scratch files are below one folder, so that the next build finds and removes what an interrupted build
    // left.
    let scratch = folder.join(".build");
    let _ = fs::remove_dir_all(&scratch);
    // The source has a folder of its own, because a binary may have the same name as its module.
    let source = scratch.join("source").join(module);
    fs::create_dir_all(&source)?;
    fs::write(source.join("go.mod"), go_mod)?;
    fs::write(source.join("go.sum"), go_sum)?;
    let mut version = KUBERNETES_VERSION.split('.');
    let flags = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION} \
         -X k8s.io/component-base/version.gitMajor={} -X k8s.io/component-base/version.gitMinor={}",
        version.next().unwrap_or_default(),
        version.next().unwrap_or_default()
    );
    let built = scratch.join(name);
    let mut command = Command::new("go");
    command
        .current_dir(&source)
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
        .arg(&built)
        .arg(package)
        .envs([
            ("GOFLAGS", "-mod=readonly"),
            ("GOTOOLCHAIN", "local"),
            ("GOWORK", "off"),
            ("CGO_ENABLED", "0"),
        ])
        .stdin(Stdio::null());
    let output = die_with_this_thread(&mut command, false).output().context("cannot run go")?;
    if !output.status.success() {
        bail!("cannot build {name}\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    fs::rename(&built, folder.join(name))?;
    let _ = fs::remove_dir_all(&scratch);
    eprintln!("built {name} in {} s", began.elapsed().as_secs());
    Ok(())
}

/// Makes the archives of the images that tests use. The script builds only what is missing, from the sources it
/// names.
fn images(folder: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/build");
    let mut command = Command::new(script);
    command.arg(folder.join("images")).stdin(Stdio::null());
    let status =
        die_with_this_thread(&mut command, false).status().context("cannot run images/build")?;
    if !status.success() {
        bail!("the images of the node could not be built: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_has_the_version_of_its_control_plane() {
        let line = format!("k8s.io/kubernetes v{KUBERNETES_VERSION}");
        assert!(MODULES[0].1.contains(&line));
    }
}
