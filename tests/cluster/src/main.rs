//! `beatkeeper-cluster`: a real control plane on the command line.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use beatkeeper_cluster::{ControlPlane, Options, Progress, binaries, die_with_this_thread};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager) for tests and trials.
///
/// Its binaries are built from source with Go on first use, which takes minutes; after that it is ready in seconds.
/// It needs no root and no containers, and leaves nothing behind.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the binaries where they are missing, and print their folder.
    Build,
    /// Start a control plane, print how to reach it, and run it until Ctrl-C.
    Up(Choices),
    /// Run a command against a control plane of its own, and pass its exit code on.
    ///
    /// The command finds it by KUBECONFIG; tests of this repository share it by BEATKEEPER_TEST_CLUSTER. The
    /// control plane's kubectl comes first on its PATH.
    Exec {
        #[command(flatten)]
        choices: Choices,
        /// The command and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Choices {
    /// Have etcd sync each write to disk, as in production.
    #[arg(long)]
    fsync: bool,
    /// Another flag of kube-apiserver, such as --api-server-flag=--v=4; may be repeated.
    #[arg(long = "api-server-flag", value_name = "FLAG", allow_hyphen_values = true)]
    api_server_flags: Vec<String>,
    /// Another flag of kube-controller-manager; may be repeated.
    #[arg(long = "controller-manager-flag", value_name = "FLAG", allow_hyphen_values = true)]
    controller_manager_flags: Vec<String>,
}

impl From<Choices> for Options {
    fn from(choices: Choices) -> Self {
        let Choices { fsync, api_server_flags, controller_manager_flags } = choices;
        Self { fsync, api_server_flags, controller_manager_flags, ..Self::default() }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().action).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("beatkeeper-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::Build => {
            let folder = binaries(Progress::Terminal)?;
            println!("{}", folder.display());
            Ok(ExitCode::SUCCESS)
        }
        Action::Up(choices) => up(choices).await,
        Action::Exec { choices, command } => exec(choices, &command).await,
    }
}

async fn up(choices: Choices) -> Result<ExitCode> {
    let mut end = End::new()?;
    let plane = tokio::select! {
        plane = ControlPlane::start(choices.into()) => plane?,
        () = end.asked() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let mut out = std::io::stdout();
    for (name, value) in plane.environment() {
        // The reader of these lines may have closed the pipe after them. That is no reason to end.
        let _ = writeln!(out, "export {name}={}", quoted(&value));
    }
    eprintln!("ready; Ctrl-C stops it");
    end.asked().await;
    plane.stop().await?;
    Ok(ExitCode::SUCCESS)
}

async fn exec(choices: Choices, command: &[String]) -> Result<ExitCode> {
    let mut end = End::new()?;
    let plane = tokio::select! {
        plane = ControlPlane::start(choices.into()) => plane?,
        () = end.asked() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let result = run_beside(&plane, command, &mut end).await;
    plane.stop().await?;
    result.map(exit_code)
}

/// Must be polled on `main`'s own thread, because the command ends with this thread.
async fn run_beside(plane: &ControlPlane, command: &[String], end: &mut End) -> Result<ExitStatus> {
    let [program, arguments @ ..] = command else {
        anyhow::bail!("no command given");
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(plane.environment());
    if let Some(path) = path_with(plane)? {
        command.env("PATH", path);
    }
    // The command shares our process group: Ctrl-C in the terminal reaches it without us.
    die_with_this_thread(&mut command, false);
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            // Ctrl-C has also reached the command, and the command decides how to react. A TERM reached only us, so
            // we pass it on.
            asked = end.next() => if asked == Asked::Terminate && let Some(pid) = child.id() {
                terminate(pid);
            },
        }
    }
}

fn path_with(plane: &ControlPlane) -> Result<Option<std::ffi::OsString>> {
    let Some(folder) = plane.bin("kubectl").parent().map(ToOwned::to_owned) else {
        return Ok(None);
    };
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&old));
    Ok(Some(std::env::join_paths(folders)?))
}

fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // The command may have ended in this moment.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Returns the path for a shell, quoted only if necessary.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Returns the exit code as shells do: 128 plus the signal's number for a command that a signal ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Which signal arrived.
#[derive(PartialEq, Eq)]
enum Asked {
    Interrupt,
    Terminate,
}

/// The signals that ask us to end.
struct End {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl End {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.hangup.recv() => Asked::Terminate,
        }
    }

    async fn asked(&mut self) {
        self.next().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_or_a_quote_survives_the_shell() {
        for (path, shell) in [
            ("/home/me/.cache", "/home/me/.cache"),
            ("/my cache", "'/my cache'"),
            ("/it's", r"'/it'\''s'"),
        ] {
            assert_eq!(quoted(Path::new(path)), shell);
        }
    }
}
