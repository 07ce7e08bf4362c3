//! Finds the peers' servers: on the PATH, or unpacked by `scripts/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::system::{Absent, Setup};

/// The jars of ZooKeeper's server. They are listed one by one, because the folder contains loggers that conflict.
const JARS: [&str; 13] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "metrics-core",
    "snappy-java",
    "commons-cli",
    "commons-io",
    "netty-all",
    "jackson-core",
    "jackson-databind",
    "jackson-annotations",
    "log4j-1.2",
];

/// Returns where Debian's packages put shared libraries, below the folder in which the packages were unpacked.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let lib = folder.join("usr/lib");
    let triplets =
        std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
    triplets.filter(|path| path.is_dir()).chain([lib.clone()]).collect()
}

/// Returns a command for a program, and the program's version text.
pub fn program(setup: &Setup, name: &str) -> Result<(Command, String)> {
    let unpacked = setup.peers.as_ref().map(|folder| (folder, folder.join("usr/bin").join(name)));
    let make = || match &unpacked {
        Some((folder, program)) if program.exists() => {
            let mut command = Command::new(program);
            let paths = std::env::join_paths(libraries(folder)).unwrap_or_default();
            command.env("LD_LIBRARY_PATH", paths);
            command
        }
        _ => Command::new(name),
    };
    let said = make().arg("--version").output().map_err(|_| {
        Absent(format!("{name} is not installed: neither on the PATH nor by scripts/peers"))
    })?;
    Ok((make(), String::from_utf8_lossy(&said.stdout).into_owned()))
}

/// Returns a command for Java with ZooKeeper on its class path, and ZooKeeper's version.
pub fn zookeeper(setup: &Setup) -> Result<(Command, String)> {
    let roots = setup.peers.iter().cloned().chain([PathBuf::from("/")]);
    let folder = roots
        .map(|root| root.join("usr/share/java"))
        .find(|folder| folder.join("zookeeper.jar").exists())
        .ok_or_else(|| Absent("ZooKeeper is not installed: scripts/peers unpacks it".to_owned()))?;
    if Command::new("java").arg("-version").output().is_err() {
        return Err(Absent("there is no java for ZooKeeper".to_owned()).into());
    }
    let jars: Vec<PathBuf> = JARS.iter().map(|jar| folder.join(format!("{jar}.jar"))).collect();
    let mut command = Command::new("java");
    command.arg("-cp").arg(std::env::join_paths(jars)?);
    Ok((command, version_of_jar(&folder).unwrap_or_else(|| "of unknown version".to_owned())))
}

/// Reads the version from a link beside the jar, which has the version in its name.
fn version_of_jar(folder: &Path) -> Option<String> {
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name.strip_prefix("zookeeper-")?.strip_suffix(".jar")?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    })
}
