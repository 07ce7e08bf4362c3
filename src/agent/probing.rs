//! The thread on which probes run.
//!
//! To start a process waits for the disk that its program is on. A probe must not hold up a beat, so what
//! probes has a thread and a runtime of its own.

use std::{sync::OnceLock, thread};

use tokio::runtime::{Builder, Handle};

/// Its runtime. Where the system gives no thread, the present one.
pub fn handle() -> Handle {
    static PROBING: OnceLock<Option<Handle>> = OnceLock::new();
    PROBING.get_or_init(start).clone().unwrap_or_else(Handle::current)
}

fn start() -> Option<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    let probing = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name("probes".to_owned()).spawn(probing).ok()?;
    Some(handle)
}
