//! A gateway as a process, from its start to its end.

use beatkeeper_gateway::{
    run::{self, Bound},
    settings::Settings,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    args::Args,
    cluster,
    lease::GatewayLease,
    place::{self, AddressError, NoAddress, Place},
};
use crate::kube_client::{self, ConnectError, Source};

/// How often the certificate files are read.
const REREAD: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a gateway is not ready that cannot ask the API server.
const NOT_READY: &str =
    "the issuer of tokens is not known yet: the API server has not told it; the log says why";

/// Why a gateway did not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The place of the gateway.
    #[error(transparent)]
    Place(#[from] NoAddress),
    /// An address to listen on.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The connection to the API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The network of the gateway.
    #[error(transparent)]
    Gateway(#[from] run::RunError),
}

/// Runs a gateway until `stop` is cancelled, and until it has drained. It has to be called on the thread of a gateway
/// ([`run::on_this_thread`]).
///
/// # Errors
/// [`RunError`].
pub async fn run(
    source: impl Into<Source>,
    args: Args,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let source = source.into();
    let place = Place::of(|name| std::env::var(name).ok(), source.namespace())?;
    let options = kube_client::Options::of("gateway", Timestamp::now);
    let client = kube_client::connect(source, &options)?;
    let bound = Bound::bind(settings(&args, &place).await?).await?;
    let addresses = bound.addresses();
    let bound = bound.published_at(place.published(addresses.beats));

    let asking = cluster::ports(client.clone(), &args);
    let asking = bound.not_ready_until(stop.run_until_cancelled(asking), NOT_READY);
    let Some(ports) = asking.await else { return Ok(()) };
    // Replicas find the gateway by its Lease, so it is made when beats can be taken.
    let streams = place.published(addresses.streams);
    let operator = &args.leader_elect_resource_name;
    let lease = GatewayLease::new(client, &place, operator, streams, bound.certificates());
    let over = CancellationToken::new();
    let serving = async {
        let ended = bound.run(ports, stop).await;
        over.cancel();
        ended
    };
    let (ended, ()) = tokio::join!(serving, lease.keep(&over));
    lease.delete().await;
    Ok(ended?)
}

async fn settings(args: &Args, place: &Place) -> Result<Settings, AddressError> {
    Ok(Settings {
        pod: place.uid.clone(),
        beats: place::socket("bind-address", &args.bind_address).await?,
        streams: place::socket("streams-bind-address", &args.streams_bind_address).await?,
        admin: place::socket("health-probe-bind-address", &args.health_probe_bind_address).await?,
        // The port is known once it listens.
        published: None,
        certificate: args.certificate(),
        stream_certificate: args.stream_certificate(),
        reread: REREAD,
        lease_duration: args.leader_elect_lease_duration,
        drain: args.drain_timeout,
        limits: args.limits(),
        stream_limits: args.stream_limits(),
    })
}
