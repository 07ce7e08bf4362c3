//! The agent's own health, for whoever started it.

use std::future::IntoFuture;

use anyhow::{Context, Result};
use axum::{Router, http::StatusCode, routing::get};
use tokio::sync::watch;

use super::member::Stage;
use crate::bind_address::BindAddress;

/// Serves `/livez`, which answers as long as the loop that beats runs, and `/readyz`: 200 once a first beat of
/// each instance was accepted. An API server that goes away later makes nobody unready: that is not the
/// fault of those who beat, and no kubelet is to take them out for it.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: &str,
    stages: Vec<watch::Receiver<Stage>>,
) -> Result<impl Future<Output = ()> + use<>> {
    let listener = BindAddress::listen(address)
        .await
        .with_context(|| format!("cannot listen on --health-bind-address {address}"))?;
    let ready = move || {
        let waiting = stages.iter().filter(|stage| *stage.borrow() == Stage::Starting).count();
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
    let router = Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(ready));
    let serving = axum::serve(listener, router).into_future();
    Ok(async {
        let _ = serving.await;
    })
}
