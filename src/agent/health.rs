//! The agent's own health, for the program that started the agent.

use std::future::IntoFuture;

use anyhow::{Context, Result};
use axum::{Router, http::StatusCode, routing::get};
use beatkeeper_client::publication::Publication;
use tokio::sync::watch;

use super::supervisor::{WorkerStatus, control::WorkerState};
use crate::bind_address::BindAddress;

/// Serves three paths. `/livez` answers while the loop that beats runs. `/readyz` returns 200 once a first
/// beat of each instance was accepted. `/published` returns 200 while the operator publishes all instances,
/// as far as is known, with a line for each. An API server that becomes unavailable later makes no instance
/// unready: it is not the fault of the instances, so the kubelet must not mark them as unready.
///
/// # Errors
/// The agent cannot listen on the address.
pub async fn serve(
    address: &str,
    statuses: watch::Receiver<Vec<WorkerStatus>>,
) -> Result<impl Future<Output = ()> + use<>> {
    let listener = BindAddress::listen(address)
        .await
        .with_context(|| format!("cannot listen on --health-bind-address {address}"))?;
    let all = statuses.clone();
    let ready = move || {
        let starts = |one: &&WorkerStatus| *one.state.borrow() == WorkerState::Starting;
        let waiting = all.borrow().iter().filter(starts).count();
        async move {
            match waiting {
                0 => (StatusCode::OK, "ok\n".to_owned()),
                some => {
                    let told = format!("no beat accepted yet of {some} instances\n");
                    (StatusCode::SERVICE_UNAVAILABLE, told)
                }
            }
        }
    };
    let published = move || {
        let page = published(&statuses.borrow());
        async move { page }
    };
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/published", get(published));
    let serving = axum::serve(listener, router).into_future();
    Ok(async {
        let _ = serving.await;
    })
}

fn published(all: &[WorkerStatus]) -> (StatusCode, String) {
    let mut code = StatusCode::OK;
    let mut page = String::new();
    for WorkerStatus { lease, standing, .. } in all {
        let standing = standing.borrow();
        if !standing.as_ref().is_some_and(Publication::is_published) {
            code = StatusCode::SERVICE_UNAVAILABLE;
        }
        match &*standing {
            Some(standing) => page += &format!("{lease}: {standing}\n"),
            None => page += &format!("{lease}: not known yet\n"),
        }
    }
    (code, page)
}
