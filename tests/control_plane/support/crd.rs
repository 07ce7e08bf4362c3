//! Control planes with the ServiceRegistration resource.

use beatkeeper_cluster::{ControlPlane, Options, shared};
use tokio::sync::OnceCell;

/// The shared control plane with the CRD installed, established and served. The CRD is installed
/// once for all tests.
pub async fn install() -> &'static ControlPlane {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let plane = shared().await;
    INSTALLED
        .get_or_init(|| async {
            plane.declare(&beatkeeper_api::crd()).await.expect("the CRD can be installed");
        })
        .await;
    plane
}

/// A control plane of the test's own, with the CRD installed, for a test that breaks it, needs other options or must
/// be alone on it. It ends with the test.
pub async fn install_on_own(options: Options) -> &'static ControlPlane {
    let plane = ControlPlane::start_for_this_thread(options).await.unwrap();
    plane.declare(&beatkeeper_api::crd()).await.unwrap();
    plane
}
