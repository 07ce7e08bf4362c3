//! How tokens of this cluster are checked.

use std::time::Duration;

use beatkeeper_gateway::{
    identity::{api_server::ApiServer, authenticator::Way, claims::Expected, ports::KeySource},
    run::Ports,
};
use kube::Client;
use tokio::time::sleep;

use super::args::Args;

/// The pause after the API server has not told the issuer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the review of a token counts.
const REVIEWED: Duration = Duration::from_secs(60);

/// Asks for what a gateway needs before it takes beats, until it is told.
pub(super) async fn ports(client: Client, args: &Args) -> Ports {
    let api_server = ApiServer::new(client);
    let audience = args.token_audience.clone();
    if args.token_review {
        // A review compares the issuer.
        let expected = Expected { issuer: String::new(), besides: Vec::new(), audience };
        return Ports {
            tokens: Way::Reviews { reviewer: Box::new(api_server), lasts: REVIEWED },
            expected,
        };
    }
    let issuer = issuer(&api_server).await;
    let besides = args.token_issuers();
    tracing::info!(issuer, ?besides, audience, "tokens are verified with the published keys");
    let expected = Expected { issuer, besides, audience };
    Ports { tokens: Way::Keys(Box::new(api_server)), expected }
}

async fn issuer(api_server: &ApiServer) -> String {
    let mut told = false;
    loop {
        match api_server.issuer().await {
            Ok(issuer) => return issuer,
            Err(error) if !told => tracing::warn!(
                %error,
                "cannot read the issuer of the cluster's tokens: no beat is taken until it is known; the ServiceAccount \
                 needs the ClusterRole system:service-account-issuer-discovery"
            ),
            Err(error) => tracing::debug!(%error, "still cannot read the issuer"),
        }
        told = true;
        sleep(PAUSE).await;
    }
}
