//! The thread on which probes run.
//!
//! Starting a process waits for the disk that holds its program. A probe must not delay a beat, so the probes
//! have a thread and a runtime of their own.

use std::{sync::OnceLock, thread};

use tokio::runtime::{Builder, Handle};

/// Returns the runtime of that thread; if the system gives no thread, the current runtime.
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
