//! Builds one binary with Go from the pinned module graphs.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::binaries::{
    Binary, ETCD_MOD, ETCD_SUM, KUBERNETES_MOD, KUBERNETES_SUM, KUBERNETES_VERSION, Module,
};

/// The minimum version that Kubernetes 1.37 needs.
const OLDEST_GO: (u32, u32) = (1, 26);
const GET_GO: &str = "get it from https://go.dev/dl or from your distribution, and put it on PATH; \
    or set KUBEBUILDER_ASSETS to a folder that has etcd, kube-apiserver, kube-controller-manager and kubectl";

/// Returns the command that builds `binary` into the file `to`; `scratch` is a folder for the module files.
///
/// # Errors
/// If Go is missing or too old.
pub(crate) fn go_build(binary: &Binary, scratch: &Path, to: &Path) -> Result<Command> {
    check_go()?;
    // Go finds its module in the working folder. The module files are embedded in this program, so that it works
    // without its source tree.
    let (module, sum) = match binary.module {
        Module::Kubernetes => (KUBERNETES_MOD, KUBERNETES_SUM),
        Module::Etcd => (ETCD_MOD, ETCD_SUM),
    };
    let folder = scratch.join("module");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("go.mod"), module)?;
    fs::write(folder.join("go.sum"), sum)?;

    let mut command = Command::new("go");
    command.current_dir(&folder).args(arguments(binary, to).iter().map(OsStr::new)).envs(SETTINGS);
    Ok(command)
}

/// These settings give the same result on every machine: Go uses only what go.mod and go.sum say, and fetches no
/// other toolchain.
const SETTINGS: [(&str, &str); 5] = [
    ("GOFLAGS", "-mod=readonly"),
    ("GOTOOLCHAIN", "local"),
    ("GOWORK", "off"),
    ("CGO_ENABLED", "0"),
    ("GO111MODULE", "on"),
];

pub(crate) fn arguments(binary: &Binary, to: &Path) -> Vec<String> {
    vec![
        "build".to_owned(),
        "-trimpath".to_owned(),
        "-buildvcs=false".to_owned(),
        "-ldflags".to_owned(),
        linker_flags(binary.module),
        "-o".to_owned(),
        to.display().to_string(),
        binary.package.to_owned(),
    ]
}

/// Returns the linker flags. They set the version of Kubernetes: without them the API server reports v0.0.0, and
/// clients refuse it.
fn linker_flags(module: Module) -> String {
    let mut flags = "-s -w".to_owned();
    if module == Module::Kubernetes {
        let mut numbers = KUBERNETES_VERSION.split('.');
        let mut set = |name: &str, value: &str| {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
        };
        set("gitVersion", &format!("v{KUBERNETES_VERSION}"));
        set("gitMajor", numbers.next().unwrap_or_default());
        set("gitMinor", numbers.next().unwrap_or_default());
    }
    flags
}

fn check_go() -> Result<()> {
    let (major, minor) = OLDEST_GO;
    let output = Command::new("go").args(["env", "GOVERSION"]).envs(SETTINGS).output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "Go {major}.{minor} or newer builds the control plane, and there is no `go` on PATH: {GET_GO}"
        ),
        Err(error) => return Err(error).context("cannot run `go env GOVERSION`"),
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !is_new_enough(&version) {
        bail!(
            "Go {major}.{minor} or newer builds the control plane, and the `go` on PATH is {version:?}: {GET_GO}"
        );
    }
    Ok(())
}

/// `go1.26.8` → true. A version that does not look like a release (`devel …`) is a private build, and counts as
/// new.
fn is_new_enough(version: &str) -> bool {
    let Some(numbers) = version.strip_prefix("go") else {
        return version.starts_with("devel");
    };
    let mut numbers = numbers
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST_GO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_1_26_is_new_enough_and_1_25_is_not() {
        for (version, enough) in [
            ("go1.26.0", true),
            ("go1.26rc1", true),
            ("go1.27", true),
            ("go2.0", true),
            ("devel go1.28-abc", true),
            ("go1.25.9", false),
            ("go1.9", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version:?}");
        }
    }

    #[test]
    fn the_api_server_is_told_its_version() {
        assert_eq!(
            linker_flags(Module::Kubernetes),
            "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.1 \
             -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
        );
    }
}
