//! How one connection is made: TCP, a tunnel if there is a proxy, and TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use beatkeeper_api::text::plain_error_chain;
use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{HttpConnector, proxy::Tunnel},
    rt::TokioIo,
};
use kube::{Config, client::ConfigExt, config::AuthInfo};
use rustls::{
    ClientConfig,
    pki_types::ServerName,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio_rustls::TlsConnector;
use tower::{BoxError, Service, ServiceExt};

use super::{error::ConnectError, plugin::Credential, proxy::Proxy, redacted, stream::Stream};

/// The longest time after which a connection is given up if its peer acknowledges nothing.
const DEAD_AFTER: Duration = Duration::from_secs(25);
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long the proxy may take for its tunnel, and the server for its handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);

/// How connections to one API server are made, until its description changes.
pub(super) struct Route {
    tcp: HttpConnector,
    server: Peer,
    proxy: Option<(Proxy, Peer)>,
}

/// A host, and how its identity is verified.
struct Peer {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Other(BoxError),
}

impl Route {
    /// Makes a route from the configuration; a client certificate may come from a plugin.
    pub(super) fn of(
        config: &Config,
        proxy: Option<&Proxy>,
        credential: Option<&Credential>,
    ) -> Result<Self, ConnectError> {
        let identity = credential.and_then(|one| one.identity.as_ref());
        let tls = || {
            let mut tls = trust(config)?;
            if let Some((chain, key)) = identity {
                let provider = tls.crypto_provider();
                let pair = CertifiedKey::from_der(chain.clone(), key.clone_key(), provider)
                    .map_err(|error| ConnectError::Unreadable(error.to_string()))?;
                tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(pair));
            }
            Ok(tls)
        };
        let server = Peer::of(&config.cluster_url, config.tls_server_name.as_deref(), tls)?;
        let proxy = proxy.cloned().map(|proxy| {
            // The API server's CA does not apply to a proxy: its certificate comes from elsewhere.
            let tls = || trust(&Config::new(proxy.uri.clone()));
            Peer::of(&proxy.uri, None, tls).map(|peer| (proxy, peer))
        });
        Ok(Self { tcp: tcp(config), server, proxy: proxy.transpose()? })
    }

    /// The host to connect to: the proxy or, without one, the API server.
    pub(super) fn first(&self) -> (&str, u16) {
        let first = self.proxy.as_ref().map_or(&self.server, |(_, peer)| peer);
        (&first.host, first.port)
    }

    /// Connects through this address of [`first`](Self::first).
    pub(super) async fn connect(&self, address: SocketAddr) -> Result<Stream, ConnectFailure> {
        let other = |error: BoxError| ConnectFailure::Other(error);
        let uri =
            Uri::try_from(format!("http://{address}")).map_err(|error| other(error.into()))?;
        let tcp = self.tcp.clone().oneshot(uri).await.map_err(|error| other(error.into()))?;
        let rest = async {
            let mut stream = Stream::over(tcp.into_inner());
            if let Some((proxy, peer)) = &self.proxy {
                let of_proxy = |error: BoxError| {
                    let cause = plain_error_chain(error.as_ref());
                    other(format!("the proxy {}: {cause}", proxy.host()).into())
                };
                stream = peer.secure(stream).await.map_err(|error| of_proxy(error.into()))?;
                stream = tunnel(stream, proxy, &self.server).await.map_err(of_proxy)?;
            }
            self.server.secure(stream).await.map_err(ConnectFailure::Tls)
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no handshake in time");
        let made = tokio::time::timeout(HANDSHAKE_LIMIT, rest).await;
        made.unwrap_or_else(|_| Err(other(late().into())))
    }
}

impl Peer {
    fn of(
        uri: &Uri,
        name: Option<&str>,
        tls: impl FnOnce() -> Result<ClientConfig, ConnectError>,
    ) -> Result<Self, ConnectError> {
        let unusable =
            || ConnectError::Unreadable(format!("{} is no URL of a server", redacted::url(uri)));
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(unusable)?;
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        if !secure && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(unusable());
        }
        let name = name.unwrap_or(host.trim_matches(['[', ']']).trim_end_matches('.'));
        // Without TLS no certificates are loaded: an image may have none at all.
        let tls = if secure {
            let name = ServerName::try_from(name.to_owned()).map_err(|_| unusable())?;
            Some((Arc::new(tls()?), name))
        } else {
            None
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { host: host.to_owned(), port, tls })
    }

    async fn secure(&self, stream: Stream) -> io::Result<Stream> {
        match &self.tls {
            None => Ok(stream),
            Some((config, name)) => {
                let tls = TlsConnector::from(Arc::clone(config));
                Ok(Stream::over(tls.connect(name.clone(), stream).await?))
            }
        }
    }
}

/// Asks the proxy for a tunnel to the server.
async fn tunnel(stream: Stream, proxy: &Proxy, server: &Peer) -> Result<Stream, BoxError> {
    let mut stream = Some(TokioIo::new(stream));
    let there = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or("the tunnel is asked for once");
        std::future::ready(stream)
    });
    let mut tunnel = Tunnel::new(proxy.uri.clone(), there);
    if let Some(authorization) = &proxy.authorization {
        tunnel = tunnel.with_auth(authorization.clone());
    }
    let server = format!("https://{}:{}", server.host, server.port).parse::<Uri>()?;
    Ok(tunnel.call(server).await?.into_inner())
}

/// Returns the trusted CAs and the client certificate of a configuration. No plugin is run for it.
fn trust(config: &Config) -> Result<ClientConfig, ConnectError> {
    let mut config = config.clone();
    let AuthInfo {
        client_certificate, client_certificate_data, client_key, client_key_data, ..
    } = std::mem::take(&mut config.auth_info);
    config.auth_info = AuthInfo {
        client_certificate,
        client_certificate_data,
        client_key,
        client_key_data,
        ..AuthInfo::default()
    };
    Ok(config.rustls_client_config()?)
}

/// Makes the connector for TCP.
pub fn tcp(config: &Config) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some((DEAD_AFTER - KEEPALIVE) / KEEPALIVE_RETRIES));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(DEAD_AFTER));
    tcp
}
