//! A command that is wrapped: it is alive as long as its process.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::signals::ended_by;

/// A shell's words for a command that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The process that runs.
pub struct Wrapped {
    child: Child,
    pid: Option<Pid>,
}

impl Wrapped {
    /// Starts a command, without a shell, on our own terminal.
    ///
    /// # Errors
    /// It cannot be started; [`cannot_start`] makes an exit code of it.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let [program, args @ ..] = command else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no command is given"));
        };
        let child = Command::new(program).args(args).spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, pid })
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends it a signal. One that has just ended gets none.
    pub fn signal(&self, signal: Signal) {
        // Until its end was waited for, nobody else can have this pid.
        if let Some(pid) = self.pid.filter(|_| self.child.id().is_some()) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The exit code of a command that never ran.
pub fn cannot_start(error: &io::Error) -> ExitCode {
    let missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN })
}

/// The exit code of a command, passed on as a shell does.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => ended_by(signal),
        (None, None) => ExitCode::FAILURE,
    }
}
