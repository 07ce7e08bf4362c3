//! Child processes that never outlive their parent.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal};

/// Makes the kernel kill the child when the *thread* that spawned it ends, for any reason.
///
/// The kernel ties the death signal to the spawning thread, not to its process. So spawn from a thread that lives
/// as long as the child should: `main`'s, or one made for the purpose; never a worker of an async runtime. The
/// signal also kills a stopped child (SIGSTOP).
///
/// If `own_group` is set, the child gets a process group of its own: Ctrl-C in the terminal then reaches only us,
/// and we stop the children in order.
#[allow(unsafe_code)]
pub fn die_with_this_thread(command: &mut Command, own_group: bool) -> &mut Command {
    let parent = rustix::process::getpid();
    if own_group {
        command.process_group(0);
    }
    // SAFETY: between fork and exec only two system calls are made; neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || tie_to(parent)) }
}

fn tie_to(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the parent died before the line above, it sends no signal any more. We already have a new parent then.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
    }
    Ok(())
}
