//! `console`: serves a page on this computer that shows registrations live.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::Args;
use http::Uri;

use crate::{
    console::{
        operator::{Metrics, Source},
        server::{self, Settings},
    },
    error::{Error, Outcome},
    flags::{ConnectionFlags, Selection},
    gather::scope::Wanted,
    leader::{flags::LeaderFlags, standing::Asker},
    output::Output,
    session::Session,
};

/// The arguments of `console`.
#[derive(Debug, Clone, Args)]
pub struct ConsoleArgs {
    #[command(flatten)]
    selection: Selection,
    /// The port to listen on. Default: a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The address to listen on: 127.0.0.1 or ::1.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_parser = loopback)]
    address: IpAddr,
    /// Open the page in a browser.
    #[arg(long)]
    open: bool,
    /// Where to read the leader's metrics, such as http://127.0.0.1:8080/metrics with kubectl port-forward. Default:
    /// from its Pod, through the API server.
    #[arg(long, value_name = "URL", value_parser = plain_url)]
    metrics: Option<Uri>,
    #[command(flatten)]
    leader: LeaderFlags,
}

/// Serves the page until the user ends it.
///
/// # Errors
/// [`Error`], if the cluster cannot be reached, or the address is in use.
pub async fn run(
    args: &ConsoleArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let session = Session::open(connection).await?;
    let wanted = Wanted::of(&args.selection, &session.namespace);
    let settings = Settings {
        at: SocketAddr::new(args.address, args.port),
        open: args.open,
        source: Source {
            election: args.leader.election.clone(),
            metrics: args.metrics.clone().map_or(Metrics::OfPod, Metrics::At),
            every: Duration::from_secs(1),
        },
    };
    let leader = Asker::new(session.clone(), connection.clone(), args.leader.clone());
    server::run(&session, &wanted, settings, leader, output).await
}

/// The addresses that only this computer reaches. The page shows what the user may read, without asking for a login.
fn loopback(text: &str) -> Result<IpAddr, NotLoopback> {
    let address = text.parse().ok().filter(IpAddr::is_loopback);
    address.ok_or_else(|| NotLoopback(text.to_owned()))
}

/// The address is not one of this computer alone.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not 127.0.0.1 or ::1: the console would show others what you may read")]
struct NotLoopback(String);

fn plain_url(text: &str) -> Result<Uri, NoPlainUrl> {
    let url: Option<Uri> = text.parse().ok();
    let url = url.filter(|url| url.scheme_str() == Some("http") && url.authority().is_some());
    url.ok_or_else(|| NoPlainUrl(text.to_owned()))
}

/// The metrics cannot be read there.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no URL that begins with http://")]
struct NoPlainUrl(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_taken() {
        assert!(loopback("127.0.0.1").is_ok() && loopback("::1").is_ok());
        for refused in ["0.0.0.0", "192.0.2.1", "::", "localhost", ""] {
            assert!(loopback(refused).is_err(), "{refused}");
        }
    }
}
