//! One control plane for all tests of a process, or of a whole test run.

use std::env;

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::options::Options;
use crate::plane::ControlPlane;

/// Names the data folder of the control plane that [`shared`] attaches to.
pub const ATTACH_VARIABLE: &str = "BEATKEEPER_TEST_CLUSTER";

/// The control plane that this process's tests share, started by the first that asks.
///
/// Where `beatkeeper-cluster exec` runs the tests, it is that command's, shared by all test processes. Tests keep
/// apart by [`ControlPlane::namespace`]; one that stops or kills a part starts a control plane of its own.
///
/// # Panics
/// When there is none to be had, with the reason: no test can go on then.
pub async fn shared() -> &'static ControlPlane {
    // The processes hang on a thread of their own and clients are made anew for each caller, so nothing in here
    // belongs to the runtime of the test that came first. It is never dropped: the kernel ends the processes along
    // with this one, and the next control plane sweeps the folder.
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
