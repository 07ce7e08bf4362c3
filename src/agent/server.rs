//! Where the agent listens: for those that ask for its health, and for Prometheus.

use std::{future::IntoFuture, sync::Arc};

use axum::Router;
use tokio::{net::TcpListener, sync::watch};

use super::{health, metrics::counts::AgentMetrics, plan::Plan, supervisor::WorkerStatus};
use crate::{bind_address::BindAddress, metrics::exposition};

/// The agent cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on --{flag} {address}: {cause}; give another address, or 0 for none")]
pub struct ListenError {
    flag: &'static str,
    address: String,
    cause: std::io::Error,
}

/// An address that the agent listens on, before it answers.
pub struct Server {
    listener: TcpListener,
    health: bool,
    metrics: bool,
}

impl Server {
    /// Listens on the addresses of a plan. If both are the same, one server answers for both.
    pub async fn listen(plan: &Plan) -> Vec<Result<Self, ListenError>> {
        let (health, metrics) = (&plan.health_bind_address, &plan.metrics_bind_address);
        let asked = if health == metrics {
            vec![("health-bind-address", health, true, true)]
        } else {
            vec![
                ("health-bind-address", health, true, false),
                ("metrics-bind-address", metrics, false, true),
            ]
        };
        let mut servers = Vec::new();
        for (flag, address, health, metrics) in asked {
            let BindAddress::At(address) = address else { continue };
            let listener = BindAddress::listen(address).await;
            servers.push(match listener {
                Ok(listener) => Ok(Self { listener, health, metrics }),
                Err(cause) => Err(ListenError { flag, address: address.clone(), cause }),
            });
        }
        servers
    }

    /// Answers until the future is dropped.
    pub async fn serve(
        self,
        statuses: watch::Receiver<Vec<WorkerStatus>>,
        metrics: Arc<AgentMetrics>,
    ) {
        let mut router = Router::new();
        if self.health {
            router = router.merge(health::routes(statuses));
        }
        if self.metrics {
            router = router.merge(exposition::routes(move || metrics.text()));
        }
        let _ = axum::serve(self.listener, router).into_future().await;
    }
}
