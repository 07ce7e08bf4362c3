//! A web service that reports whether it can serve: `/break` and `/mend` change its health, to show the effect.
//!
//! ```console
//! $ cargo run --package beatkeeper-client --example web -- greeter 192.0.2.1 127.0.0.1:8080
//! $ curl -X POST http://127.0.0.1:8080/break   # published as not ready, with the reason
//! ```

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::bail;
use axum::{Router, extract::State, routing};
use beatkeeper_client::Service;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (registration, address) = (argument("greeter"), argument(""));
    let listener = tokio::net::TcpListener::bind(argument("127.0.0.1:8080")).await?;

    let broken = Arc::new(AtomicBool::new(false));
    let app = Router::new()
        .route("/", routing::get(async || "hello\n"))
        .route(
            "/break",
            routing::post(async |State(it): State<Arc<AtomicBool>>| it.store(true, Relaxed)),
        )
        .route(
            "/mend",
            routing::post(async |State(it): State<Arc<AtomicBool>>| it.store(false, Relaxed)),
        )
        .with_state(Arc::clone(&broken));
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let server =
        tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(stopped).into_future());

    let mut service = Service::builder(registration)
        .register_ttl(Duration::from_secs(15))
        .register_interval(Duration::from_secs(10))
        .check_interval(Duration::from_secs(1))
        .register_check(move || {
            let broken = broken.load(Relaxed);
            async move { if broken { bail!("a request broke it") } else { Ok(()) } }
        })
        // During this time, routers stop sending requests. Then the last requests are answered.
        .drain_delay(Duration::from_secs(1))
        .after_stop(|| async move {
            stop.cancel();
            anyhow::Ok(())
        });
    if !address.is_empty() {
        service = service.address(address.parse()?);
    }
    service.build()?.run().await?;
    Ok(server.await??)
}
