//! `exec`: runs a command, without a shell; exit code 0 is success.
//!
//! The command leads a process group of its own. When the probe ends (the command has ended, its time is
//! over, or the agent stops), that group is killed. A probe runs every few seconds for weeks, so it must not
//! leave processes behind. A process that has to outlive the probe must leave the group (setsid).

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use futures::future::{Either, select};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::super::reap::{self, Ours};
use super::spec::Exec;
use super::{failure::ProbeFailure, outcome::Outcome, text};

/// How many bytes of the output are kept, for its first line. The rest is read and dropped, so that the
/// command can continue.
const OUTPUT_MAX: usize = 4096;
/// How long to read on after the end of the command. All output of the command is available at once by then.
/// Only a process that has left the group can keep the output open, and the probe does not wait for it.
const LAST_WORDS: Duration = Duration::from_millis(100);

pub(super) async fn check(exec: &Exec) -> Outcome {
    let ((mut child, _ours), mut pipe) = start(exec).map_err(ProbeFailure::NotStarted)?;
    let group = Group::of(&child);
    let mut output = Vec::new();
    let end = async {
        let status = child.wait().await;
        drop(group);
        status
    };
    let status = match select(pin!(end), pin!(read(&mut pipe, &mut output))).await {
        Either::Left((status, reading)) => {
            let _ = timeout(LAST_WORDS, reading).await;
            status
        }
        Either::Right(((), end)) => end.await,
    };
    let status = status.map_err(ProbeFailure::EndMissed)?;
    if status.success() {
        return Ok(None);
    }
    let output = text::line(&String::from_utf8_lossy(&output));
    Err(ProbeFailure::Ended { status, output })
}

fn start(exec: &Exec) -> io::Result<((Child, Ours), pipe::Receiver)> {
    // Stdout and stderr share one pipe, so that the first line is the one that was written first.
    let (reader, writer) = io::pipe()?;
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let mut command = Command::new(&exec.program);
    command
        .args(&exec.args)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let child = reap::spawn(&mut command)?;
    Ok((child, reader))
}

/// Ends with the output. If this future is dropped before, the output that was read is kept.
async fn read(pipe: &mut pipe::Receiver, output: &mut Vec<u8>) {
    let mut buffer = [0; OUTPUT_MAX];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let kept = length.min(OUTPUT_MAX - output.len());
        output.extend_from_slice(&buffer[..kept]);
    }
}

/// A process group that is killed when this value is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: &Child) -> Self {
        Self(leader.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    /// The leader may have been reaped a moment ago. Its pid cannot belong to another process yet: the kernel
    /// assigns all other pids first.
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that no process is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
