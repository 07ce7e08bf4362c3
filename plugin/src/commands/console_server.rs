//! `console-server`: serves the page in a cluster, to readers that bring a token each.

use std::{env, net::Ipv6Addr, path::PathBuf, time::Duration};

use beatkeeper_api::duration;
use clap::Args;
use http::Uri;

use crate::{
    console::{
        cluster::{self, Settings},
        operator::{Metrics, Source},
        tokens::{ApiServer, Limits},
    },
    error::{Error, Outcome},
    gather::election::Election,
    output::Output,
};

/// How often the leader and its probe are read for each reader.
const LEADER_EVERY: Duration = Duration::from_secs(5);
/// How often the API server is asked whether it still accepts a token. It remembers its own answer for ten seconds.
const CHECK: Duration = Duration::from_secs(10);

/// The arguments of `console-server`.
#[derive(Debug, Clone, Args)]
pub struct ConsoleServerArgs {
    /// The address to listen on; without a host on all addresses.
    #[arg(long, value_name = "HOST:PORT", default_value = ":8080")]
    listen: String,
    /// A name by which browsers reach the console; may be repeated. It always answers for localhost.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The URL of the API server. Default: that of the Pod's environment.
    #[arg(long, value_name = "URL")]
    server: Option<Uri>,
    /// The file with the certificates that the API server's must be signed by.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )]
    certificate_authority: PathBuf,
    /// The Lease by which the operator's replicas elect their leader.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "beatkeeper/beatkeeper")]
    election: Election,
    /// The most pages that may be open at the same time.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    max_readers: u16,
    /// The most pages that one reader may have open. It never gets all of several places.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    max_pages_per_reader: u16,
    /// The most arguments (`/why`) that are read for one reader at the same time, of 8 for all.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    max_arguments_per_reader: u16,
    /// The most objects that a page may be about.
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    max_objects: u32,
    /// How long a page is told of changes before it has to ask again, such as 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    stream_lifetime: Duration,
}

/// Serves the page until it is asked to end.
///
/// # Errors
/// [`Error`], if the API server is not known, or the address is in use.
pub async fn run(args: &ConsoleServerArgs, output: &Output) -> Result<Outcome, Error> {
    let url = match &args.server {
        Some(url) => url.clone(),
        None => of_environment(|name| env::var(name).ok())?,
    };
    if url.scheme_str() != Some("https") || url.authority().is_none() {
        return Err(Error::Usage(format!("{url} is no URL that begins with https://")));
    }
    let settings = Settings {
        listen: args.listen.clone(),
        hosts: args.hosts.clone(),
        api_server: ApiServer { url, authority: args.certificate_authority.clone() },
        source: Source {
            election: Some(args.election.clone()),
            metrics: Metrics::Unread,
            every: LEADER_EVERY,
        },
        limits: Limits {
            readers: args.max_readers.into(),
            of_one_reader: args.max_pages_per_reader.into(),
            arguments_of_one_reader: args.max_arguments_per_reader.into(),
            objects: usize::try_from(args.max_objects).unwrap_or(usize::MAX),
            lifetime: args.stream_lifetime,
            check: CHECK,
        },
    };
    cluster::run(settings, output).await
}

/// The API server, as the environment of each Pod names it.
fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Uri, Error> {
    let host = variable("KUBERNETES_SERVICE_HOST");
    let Some((host, port)) = host.zip(variable("KUBERNETES_SERVICE_PORT")) else {
        let why = "this is no Pod; name the API server with --server";
        return Err(Error::Usage(why.to_owned()));
    };
    let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host };
    let url = format!("https://{host}:{port}");
    url.parse().map_err(|_| Error::Usage(format!("the environment names no API server: {url}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &'static str) -> Result<String, Error> {
        let of = |name: &str| (name == "KUBERNETES_SERVICE_HOST").then_some(host).or(Some("443"));
        of_environment(|name| of(name).map(str::to_owned)).map(|url| url.to_string())
    }

    #[test]
    fn the_environment_names_the_api_server_in_both_families() {
        assert_eq!(named("10.96.0.1").unwrap(), "https://10.96.0.1:443/");
        assert_eq!(named("fd00::1").unwrap(), "https://[fd00::1]:443/");
        assert!(of_environment(|_| None).is_err());
    }
}
