//! The chart in charts/beatkeeper, on a real API server.

mod admission;
mod alerts;
mod dashboards;
mod elsewhere;
mod gateways;
mod gitops;
pub mod helm;
mod installing;
mod openshift;
mod rendered;
mod rights;
mod runbooks;
mod size;
mod unreadable;
mod values;

use beatkeeper_cluster::{ControlPlane, Options};

/// A chart installs objects for the whole cluster. These tests therefore have separate control
/// planes, which end with the test.
async fn own_plane(options: Options) -> &'static ControlPlane {
    ControlPlane::start_for_this_thread(options).await.unwrap()
}
