//! Actions on the machine itself, if tests/node made the node.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::command;

/// Documentation addresses (RFC 5737), which this machine has while its namespaces exist.
pub(crate) const ADDRESSES: [&str; 3] = ["198.51.100.10", "198.51.100.11", "203.0.113.9"];

/// The machine that is the only node.
pub(crate) struct Host {
    folder: PathBuf,
    pub(crate) beatkeeper: PathBuf,
    pub(crate) greeter: PathBuf,
}

impl Host {
    /// Returns `None` outside the namespaces of a tests/node node, because only tests/node sets this variable, and
    /// also if one of the two programs is not given.
    pub(crate) fn find(beatkeeper: Option<PathBuf>, greeter: Option<PathBuf>) -> Option<Self> {
        let folder = PathBuf::from(env::var_os("BEATKEEPER_NODE")?);
        Some(Self { folder, beatkeeper: beatkeeper?, greeter: greeter? })
    }

    /// Adds addresses to this machine that Kubernetes does not know.
    pub(crate) async fn take_addresses(&self) -> Result<()> {
        for address in ADDRESSES {
            let mut ip = Command::new("ip");
            ip.args(["address", "add", &format!("{address}/32"), "dev", "lo"]);
            command::run(ip, "").await?;
        }
        Ok(())
    }

    /// Returns the tokens that the kubelet has mounted into Pods.
    pub(crate) fn tokens(&self) -> Result<Vec<String>> {
        let mut tokens = Vec::new();
        for pod in fs::read_dir(self.folder.join("kubelet/pods"))?.flatten() {
            // A Pod without such a volume, or one that is being removed, has no such folder.
            let volumes = pod.path().join("volumes/kubernetes.io~projected");
            for volume in fs::read_dir(volumes).into_iter().flatten().flatten() {
                tokens.extend(fs::read_to_string(volume.path().join("token")));
            }
        }
        Ok(tokens)
    }

    /// Kills the kubelet, and returns how to start it again.
    pub(crate) fn kill_kubelet(&self) -> Result<Kubelet> {
        let config = self.folder.join("kubelet.json").display().to_string();
        for process in fs::read_dir("/proc")?.flatten() {
            let Ok(id) = process.file_name().to_string_lossy().parse() else { continue };
            let Ok(line) = fs::read_to_string(process.path().join("cmdline")) else { continue };
            let arguments: Vec<_> = line.split_terminator('\0').map(str::to_owned).collect();
            if arguments.contains(&config) {
                let id = Pid::from_raw(id).context("process 0")?;
                kill_process(id, Signal::KILL)?;
                let log = self.folder.join("log/kubelet.log");
                return Ok(Kubelet { arguments, log });
            }
        }
        anyhow::bail!("no kubelet runs with {config}")
    }
}

/// A killed kubelet, with what is needed to start it again.
pub(crate) struct Kubelet {
    arguments: Vec<String>,
    log: PathBuf,
}

impl Kubelet {
    /// Starts the kubelet as before. It runs as long as the node.
    pub(crate) fn start(self) -> Result<Child> {
        let [program, arguments @ ..] = self.arguments.as_slice() else {
            anyhow::bail!("the kubelet had no name")
        };
        let log = File::options().append(true).open(self.log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        ensure!(child.id().is_some(), "the kubelet ended at once");
        Ok(child)
    }
}
