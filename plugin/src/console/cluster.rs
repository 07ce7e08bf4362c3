//! Serves the page in a cluster, to readers that bring a token each.

use std::time::Duration;

use beatkeeper::bind_address::BindAddress;

use super::{
    connections::{Connections, Handle},
    gate::Gate,
    operator::Source,
    pages::{Site, router},
    readers::Readers,
    tokens::{ApiServer, Limits, Tokens},
};
use crate::{
    error::{Error, Outcome},
    output::Output,
    signals::End,
};

/// How many connections there may be beside the streams: for files, arguments and probes.
const MORE_CONNECTIONS: usize = 64;
/// How long nothing may move over a connection. A stream tells of beats each second.
const IDLE: Duration = Duration::from_secs(60);

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on, such as `:8080`.
    pub listen: String,
    /// The hosts that requests may be for.
    pub hosts: Vec<String>,
    /// The API server.
    pub api_server: ApiServer,
    /// Where to look for the operator.
    pub source: Source,
    /// What readers may use.
    pub limits: Limits,
}

/// Serves the page until it is asked to end.
///
/// # Errors
/// [`Error`], if the address is in use, or the certificates of the API server cannot be read.
pub async fn run(settings: Settings, output: &Output) -> Result<Outcome, Error> {
    let Settings { listen, hosts, api_server, source, limits } = settings;
    let mut end = End::new()?;
    // What is wrong with the settings is said at the start, and not to the first reader.
    api_server.client(None)?;
    let refused = |cause| Error::Serve { at: listen.clone(), cause };
    let listener = BindAddress::listen(&listen).await.map_err(refused)?;
    let at = listener.local_addr().map_err(refused)?;
    let readers = Readers::Tokens(Tokens::new(api_server, source, limits));
    let site = Site { gate: Gate::named(&hosts), readers };
    let connections = Connections::new(listener, limits.readers + MORE_CONNECTIONS, IDLE);
    output.text(&format!("listening on {at}\n"))?;
    let service = router(site).into_make_service_with_connect_info::<Handle>();
    let served = axum::serve(connections, service);
    tokio::select! {
        served = served => served.map(|()| Outcome::Well).map_err(Error::Start),
        // Without waiting for the streams: the pages ask again.
        () = end.asked() => Ok(Outcome::Well),
    }
}
