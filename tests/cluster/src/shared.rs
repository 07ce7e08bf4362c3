//! One control plane for all tests of a process, or of a whole test run.

use std::env;

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::options::Options;
use crate::plane::ControlPlane;

/// The variable that names the data folder of the control plane to which [`shared`] attaches.
pub const ATTACH_VARIABLE: &str = "BEATKEEPER_TEST_CLUSTER";

/// Returns the control plane that all tests of this process share. The first caller starts it.
///
/// If `beatkeeper-cluster exec` runs the tests, it is that command's control plane, and all test processes share
/// it. Tests are separated by [`ControlPlane::namespace`]. A test that stops or kills a part starts a control plane
/// of its own.
///
/// # Panics
/// If no control plane can be started or found, with the reason: no test can continue then.
pub async fn shared() -> &'static ControlPlane {
    // The processes are tied to a thread of their own, and each caller gets new clients. So nothing here belongs to
    // the runtime of the first test. The value is never dropped: the kernel ends the processes with this process,
    // and the next control plane removes the folder.
    static SHARED: OnceCell<Result<ControlPlane, String>> = OnceCell::const_new();
    let shared = SHARED
        .get_or_init(|| async { find_or_start().await.map_err(|error| format!("{error:#}")) })
        .await;
    match shared {
        Ok(plane) => plane,
        Err(error) => panic!("there is no control plane to test with: {error}"),
    }
}

async fn find_or_start() -> Result<ControlPlane> {
    match env::var_os(ATTACH_VARIABLE).filter(|folder| !folder.is_empty()) {
        Some(folder) => ControlPlane::attach(folder).await,
        None => ControlPlane::start(Options::default()).await,
    }
}
