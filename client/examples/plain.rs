//! The simplest service: it is published while it runs.
//!
//! ```console
//! $ cargo run --package beatkeeper-client --example plain -- greeter 192.0.2.1
//! ```

use std::{env, time::Duration};

use beatkeeper_client::Service;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let registration = arguments.next().unwrap_or_else(|| "greeter".to_owned());
    let mut service = Service::builder(registration)
        .register_ttl(Duration::from_secs(30))
        .register_interval(Duration::from_secs(20))
        .after_start(|| async {
            println!("registered");
            anyhow::Ok(())
        })
        .after_stop(|| async {
            println!("deregistered");
            anyhow::Ok(())
        });
    // In a Pod, the Pod's address is used, so no argument is needed.
    if let Some(address) = arguments.next() {
        service = service.address(address.parse()?);
    }
    // Returns after SIGTERM, SIGINT or SIGQUIT.
    Ok(service.build()?.run().await?)
}
