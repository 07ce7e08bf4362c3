//! The ServiceRegistration resource on the shared control plane.

use beatkeeper_cluster::{ControlPlane, shared};
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
