//! The processes in the namespaces: the first process, which reaps, and the process that brings the node up.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beatkeeper_cluster::{ControlPlane, Options};
use rand::Rng;
use rustix::process::{Pid, WaitOptions};
use tokio::process::Child;

use crate::{binaries, settings, sweep};

/// Below the node's folder: the archives of images to load.
pub(crate) const IMAGES: &str = "images";
/// Below the node's folder: the variables to export, once the node is ready.
pub(crate) const READY: &str = "ready";
/// The address of the bridge that connects all Pods, and so of the node.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs as the first process. It reaps orphaned processes, and ends when its own child ends; all others end with
/// it.
pub(crate) fn init(folder: &Path, command: &[String]) -> Result<ExitCode> {
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    fs::write(folder.join(sweep::NAMESPACE), namespace.as_os_str().as_encoded_bytes())?;
    let child = Command::new(std::env::current_exe()?)
        .arg("inside")
        .arg(folder)
        .arg("--")
        .args(command)
        .spawn()?;
    let child = Pid::from_child(&child);
    loop {
        let Some((pid, status)) = rustix::process::wait(WaitOptions::empty())? else { continue };
        if pid == child {
            return Ok(ExitCode::from(code(ExitStatus::from_raw(status.as_raw()))));
        }
    }
}

/// Returns the exit code as shells do: 128 plus the signal's number for a command that a signal ended.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Brings the node up and runs the command. Without a command, it runs until the namespaces end.
pub(crate) async fn run(folder: &Path, command: &[String]) -> Result<ExitCode> {
    let began = Instant::now();
    network_and_mounts(folder)?;
    sweep::make_cgroups(folder)?;
    let programs = binaries::folder()?;
    let tokens = settings::Tokens::new(|| format!("{:032x}", rand::rng().random::<u128>()));
    fs::write(folder.join("tokens.csv"), tokens.file())?;
    let plane = ControlPlane::start(Options {
        node_address: Some(ADDRESS),
        runs: Some(folder.join("plane")),
        dual_stack: false,
        api_server_flags: vec![format!(
            "--token-auth-file={}",
            folder.join("tokens.csv").display()
        )],
        ..Options::default()
    })
    .await?;
    let node = Node { folder: folder.to_owned(), programs, plane };
    settings::write(&node, &tokens)?;
    let processes = node.start().await;
    if processes.is_err() {
        node.show_logs();
    }
    let _processes = processes?;
    eprintln!("the node is ready after {:.1} s", began.elapsed().as_secs_f64());

    let environment = node.environment()?;
    let [program, arguments @ ..] = command else {
        let lines: String =
            environment.iter().map(|(name, value)| format!("export {name}={value}\n")).collect();
        // The file is renamed, so that a reader never sees half of it.
        fs::write(folder.join("ready.draft"), lines)?;
        fs::rename(folder.join("ready.draft"), folder.join(READY))?;
        return std::future::pending().await;
    };
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .envs(environment)
        .status()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    Ok(ExitCode::from(code(status)))
}

fn network_and_mounts(folder: &Path) -> Result<()> {
    let log = folder.join("log");
    fs::create_dir_all(&log)?;
    let log = log.display();
    for line in [
        "ip link set lo up".to_owned(),
        "ip link add cni0 type bridge".to_owned(),
        format!("ip address add {ADDRESS}/24 dev cni0"),
        "ip link set cni0 up".to_owned(),
        // For programs that ask which address this machine has.
        format!("ip route add default dev cni0 src {ADDRESS}"),
        "sysctl -q -w net.ipv4.ip_forward=1".to_owned(),
        // kubelet and containerd's shim have these paths in their code.
        "mount -t tmpfs -o mode=755 tmpfs /run".to_owned(),
        format!("mount --bind {log} /var/log"),
    ] {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        let output = Command::new(program).args(words).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// The node and its control plane.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) plane: ControlPlane,
}

impl Node {
    async fn start(&self) -> Result<Vec<Child>> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut processes = vec![self.spawn("containerd", &["--config", &at("containerd.toml")])?];
        self.until("containerd answers", || self.ctr(&["version"])).await?;
        for archives in [self.programs.join("images"), self.folder.join(IMAGES)] {
            for archive in fs::read_dir(&archives)?.flatten().map(|entry| entry.path()) {
                if archive.extension().is_some_and(|extension| extension == "tar") {
                    let mut import = self.ctr(&["--namespace", "k8s.io", "images", "import"]);
                    succeed(import.arg("--local").arg(&archive))?;
                }
            }
        }
        processes.push(self.spawn(
            "kubelet",
            &[
                "--config",
                &at("kubelet.json"),
                "--kubeconfig",
                &at("kubelet.kubeconfig"),
                "--root-dir",
                &at("kubelet"),
                "--cert-dir",
                &at("kubelet-pki"),
                "--hostname-override",
                settings::NAME,
                "--node-ip",
                &ADDRESS.to_string(),
            ],
        )?);
        processes.push(self.spawn(
            "kube-scheduler",
            &[
                "--kubeconfig",
                &at("scheduler.kubeconfig"),
                "--authentication-kubeconfig",
                &at("scheduler.kubeconfig"),
                "--authorization-kubeconfig",
                &at("scheduler.kubeconfig"),
                "--cert-dir",
                &at("scheduler-pki"),
                "--leader-elect=false",
            ],
        )?);
        processes.push(self.spawn("kube-proxy", &["--config", &at("proxy.json")])?);
        processes.push(self.spawn("coredns", &["-conf", &at("Corefile")])?);
        let mut apply = self.plane.kubectl();
        succeed(apply.args(["apply", "--filename", &at("dns.json")]))?;
        self.until("the node is Ready", || {
            let mut wait = self.plane.kubectl();
            wait.args(["wait", "--for=condition=Ready", "--timeout=2s", "node", settings::NAME]);
            wait
        })
        .await?;
        Ok(processes)
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Result<Child> {
        let log = File::create(self.folder.join(format!("log/{name}.log")))?;
        let path = std::env::var("PATH").unwrap_or_default();
        tokio::process::Command::new(self.programs.join(name))
            .args(arguments)
            // containerd searches its shim in this path.
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(settings::CONTAINERD).args(arguments);
        command
    }

    async fn until(&self, what: &str, command: impl Fn() -> Command) -> Result<()> {
        let by = Instant::now() + PATIENCE;
        loop {
            match succeed(&mut command()) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > by => {
                    return Err(error).with_context(|| format!("waited in vain until {what}"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Prints the logs of the node's processes, because the folder is removed with the node.
    fn show_logs(&self) {
        for name in ["containerd", "kubelet", "kube-scheduler", "kube-proxy", "coredns"] {
            let log = fs::read_to_string(self.folder.join(format!("log/{name}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }

    fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut environment: Vec<_> = self
            .plane
            .environment()
            .into_iter()
            .map(|(name, value)| (name, value.display().to_string()))
            .collect();
        let kubectl = self.plane.bin("kubectl");
        let kubernetes = kubectl.parent().context("kubectl is in no folder")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = self.programs.display();
        environment
            .push(("PATH".to_owned(), format!("{}:{programs}:{path}", kubernetes.display())));
        environment.push(("BEATKEEPER_NODE".to_owned(), self.folder.display().to_string()));
        environment.push(("CONTAINERD_ADDRESS".to_owned(), settings::CONTAINERD.to_owned()));
        Ok(environment)
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let program = command.get_program().display();
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
