//! Clients of the API server that do not distort measurements by their own behaviour.

use std::fs;

use anyhow::{Context, Result};
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::AuthInfo;
use kube::{Client, Config};
use serde_json::json;
use tower::{BoxError, ServiceBuilder};

use crate::part::{Part, Ports};
use crate::pki::Pki;

/// Makes a client without Nagle's algorithm and without retries, on the current runtime.
///
/// kube's own connector leaves Nagle's algorithm on. Then about one request in fifty on an idle connection waits 40
/// ms for a delayed ACK. kube's own retries would hide the 429 and 503 that tests want to see.
pub fn connect(config: &Config) -> Result<Client> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(config.connect_timeout);
    let https = config.rustls_https_connector_with_connector(http)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(Http::builder(TokioExecutor::new()).build::<_, Body>(https));
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// The identity with which a client authenticates.
pub(crate) enum Credentials {
    Admin,
    Token(String),
}

/// Returns the configuration of a client of one of the processes.
pub(crate) fn config(
    pki: &Pki,
    ports: &Ports,
    part: Part,
    credentials: Credentials,
    user_agent: &str,
) -> Result<Config> {
    let mut config = Config::new(ports.url(part).parse()?);
    let ca = fs::read(pki.ca_der())
        .with_context(|| format!("cannot read {}", pki.ca_der().display()))?;
    config.root_cert = Some(vec![ca]);
    config.headers.push((
        "user-agent".parse()?,
        user_agent.parse().with_context(|| format!("{user_agent:?} cannot be a user agent"))?,
    ));
    config.auth_info = auth(pki, credentials)?;
    Ok(config)
}

fn auth(pki: &Pki, credentials: Credentials) -> Result<AuthInfo> {
    let auth = match credentials {
        Credentials::Admin => {
            let admin = pki.admin();
            json!({ "client-certificate": admin.certificate, "client-key": admin.key })
        }
        Credentials::Token(token) => json!({ "token": token }),
    };
    Ok(serde_json::from_value(auth)?)
}
