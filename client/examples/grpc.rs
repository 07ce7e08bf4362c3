//! A gRPC service with the standard health service. Its clients and Beatkeeper get the same health from it.
//!
//! The service can serve while its backend answers. For a test, any program that listens on a port can be the
//! backend.
//!
//! ```console
//! $ cargo run --package beatkeeper-client --example grpc -- greeter 192.0.2.1 127.0.0.1:50051 127.0.0.1:5432
//! ```

use std::{env, net::SocketAddr, time::Duration};

use anyhow::ensure;
use beatkeeper_client::Service;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{IntoRequest, transport::Server, transport::server::TcpIncoming};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_server::Health},
    server::{HealthReporter, HealthService, health_reporter},
};

/// Checks the backend, and sets the status of the whole server, which is that of the service with the empty name.
async fn watch(backend: SocketAddr, reporter: HealthReporter) {
    loop {
        let status = match timeout(Duration::from_secs(1), TcpStream::connect(backend)).await {
            Ok(Ok(_)) => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        };
        reporter.set_service_status("", status).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Checks the health as a gRPC client does.
async fn check(reporter: HealthReporter) -> anyhow::Result<()> {
    let question = HealthCheckRequest::default().into_request();
    let answer = HealthService::from_health_reporter(reporter).check(question).await?;
    let status = answer.into_inner().status().as_str_name();
    ensure!(status == "SERVING", "grpc.health.v1 says {status}");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let mut service = Service::builder(argument("greeter"));
    let address = argument("");
    if !address.is_empty() {
        service = service.address(address.parse()?);
    }
    let incoming = TcpIncoming::bind(argument("127.0.0.1:50051").parse()?)?;
    let (reporter, health) = health_reporter();
    tokio::spawn(watch(argument("127.0.0.1:5432").parse()?, reporter.clone()));
    let stop = CancellationToken::new();
    let server = Server::builder().add_service(health); // and yours
    let stopped = stop.clone().cancelled_owned();
    let server = tokio::spawn(server.serve_with_incoming_shutdown(incoming, stopped));
    let service = service
        .register_ttl(Duration::from_secs(15))
        .register_interval(Duration::from_secs(10))
        .check_interval(Duration::from_secs(1))
        .register_check(move || check(reporter.clone()))
        .drain_delay(Duration::from_secs(1)); // routers stop sending before the server stops
    service.build()?.run().await?;
    stop.cancel();
    Ok(server.await??)
}
