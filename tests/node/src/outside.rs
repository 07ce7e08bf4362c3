//! The process that the user started: it makes the namespaces, waits, and starts the removal of everything.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use beatkeeper_cluster::die_with_this_thread;
use rand::Rng;
use tokio::signal::unix::{SignalKind, signal};

use crate::{binaries, inside, preflight, sweep};

const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// Runs a node with `command` in it. Without a command, it runs until a signal arrives.
pub(crate) async fn run(images: &[PathBuf], command: &[String]) -> Result<ExitCode> {
    if !preflight::missing().is_empty() {
        return Ok(preflight::run());
    }
    binaries::build()?;
    let own = std::env::current_exe()?;
    sweep::abandoned(&binaries::cache()?.join("nodes"));
    let folder = make_folder(images)?;
    let lock = File::create(folder.join(sweep::LOCK))?;
    lock.lock()?;

    // The sweeper outlives us for a moment. It is in a process group of its own, so that Ctrl-C does not reach it.
    // It detects our end by the end of its standard input, which the kernel closes however we end.
    let mut sweeper = Command::new(&own)
        .arg("sweep")
        .arg(&folder)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start the process that cleans up")?;

    let outcome = live(&own, &folder, command).await;
    drop(sweeper.stdin.take());
    sweeper.wait()?;
    outcome
}

fn make_folder(images: &[PathBuf]) -> Result<PathBuf> {
    let id = format!("{:08x}", rand::rng().random::<u32>());
    let folder = binaries::cache()?.join("nodes").join(id);
    let links = folder.join(inside::IMAGES);
    fs::create_dir_all(&links).with_context(|| format!("cannot create {}", folder.display()))?;
    for (index, image) in images.iter().enumerate() {
        let image =
            image.canonicalize().with_context(|| format!("no image {}", image.display()))?;
        std::os::unix::fs::symlink(image, links.join(format!("{index}.tar")))?;
    }
    Ok(folder)
}

async fn live(own: &Path, folder: &Path, command: &[String]) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut node = Command::new("unshare");
    // When we end, the kernel kills unshare, then unshare's child. This child is the first process of the PID
    // namespace, so all other processes in the namespace end with it.
    node.args([
        "--net",
        "--mount",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ])
    .arg(own)
    .arg("init")
    .arg(folder)
    .arg("--")
    .args(command);
    die_with_this_thread(&mut node, false);
    let mut node = tokio::process::Command::from(node).spawn().context("cannot run unshare")?;
    let node_id = node.id();
    let code = tokio::select! {
        status = node.wait() => return Ok(ExitCode::from(inside::code(status?))),
        _ = interrupt.recv() => INTERRUPTED,
        _ = terminate.recv() => TERMINATED,
        _ = hangup.recv() => TERMINATED,
        () = announce(folder, node_id), if command.is_empty() => unreachable!("it never ends"),
    };
    // The node is killed and not asked to end: all data is deleted with it, so nothing needs to be written back.
    node.kill().await?;
    Ok(ExitCode::from(code))
}

/// Prints how to reach the node, once it is ready.
async fn announce(folder: &Path, unshare: Option<u32>) {
    let ready = folder.join(inside::READY);
    while !ready.exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    print!("{}", fs::read_to_string(&ready).unwrap_or_default());
    let first = unshare
        .and_then(|id| fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok())
        .unwrap_or_default();
    println!("export BEATKEEPER_NODE_PID={}", first.trim());
    eprintln!(
        "ready; Ctrl-C stops it. Its network is its own: nsenter --target {} --all",
        first.trim()
    );
    std::future::pending().await
}
