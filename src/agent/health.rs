//! The agent's own health, for the program that started the agent.

use axum::{Router, http::StatusCode, routing::get};
use beatkeeper_client::publication::Publication;
use tokio::sync::watch;

use super::supervisor::{WorkerStatus, control::WorkerState};

/// Answers three paths. `/livez` answers while the loop that beats runs. `/readyz` returns 200 once a first
/// beat of each instance was accepted. `/published` returns 200 while the operator publishes all instances,
/// as far as is known, with a line for each. An API server that becomes unavailable later makes no instance
/// unready: it is not the fault of the instances, so the kubelet must not mark them as unready.
pub fn routes(statuses: watch::Receiver<Vec<WorkerStatus>>) -> Router {
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
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/published", get(published))
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
