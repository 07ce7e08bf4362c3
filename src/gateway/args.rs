//! The flags of `beatkeeper gateway`.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use beatkeeper_gateway::settings::{CertificateFiles, Limits, PeerFiles, StreamLimits};
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};

use crate::{bind_address::BindAddress, controller::LogFormat};

/// The flags.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to take beats of instances, over TLS: HOST:PORT, or :PORT for all addresses.
    #[arg(long, env = "BEATKEEPER_BIND_ADDRESS", value_name = "ADDR", default_value = ":8443")]
    pub bind_address: BindAddress,

    /// Where to take the streams of the operator's replicas, over TLS in both directions.
    #[arg(
        long,
        env = "BEATKEEPER_STREAMS_BIND_ADDRESS",
        value_name = "ADDR",
        default_value = ":8444"
    )]
    pub streams_bind_address: BindAddress,

    /// Where to answer /livez, /readyz and /metrics, without TLS.
    #[arg(
        long,
        env = "BEATKEEPER_HEALTH_PROBE_BIND_ADDRESS",
        value_name = "ADDR",
        default_value = ":8081"
    )]
    pub health_probe_bind_address: BindAddress,

    /// A folder with tls.crt and tls.key in PEM format: the certificate that instances see. It is read again when it
    /// changes.
    #[arg(long, env = "BEATKEEPER_CERT_DIR", value_name = "FOLDER")]
    pub cert_dir: PathBuf,

    /// A folder with tls.crt, tls.key and ca.crt in PEM format: the certificate for the streams, and the CA of the
    /// operator's certificate. It is read again when it changes.
    #[arg(long, env = "BEATKEEPER_STREAMS_CERT_DIR", value_name = "FOLDER")]
    pub streams_cert_dir: PathBuf,

    /// The DNS name in the operator's certificate.
    #[arg(
        long,
        env = "BEATKEEPER_OPERATOR_SERVER_NAME",
        value_name = "NAME",
        default_value = "beatkeeper-operator"
    )]
    pub operator_server_name: String,

    /// The audience that the tokens of instances must be for.
    #[arg(
        long,
        env = "BEATKEEPER_TOKEN_AUDIENCE",
        value_name = "AUDIENCE",
        default_value = "beatkeeper",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub token_audience: String,

    /// An issuer whose tokens are accepted besides those of the issuer that the cluster publishes, with the same keys; may
    /// be given several times. Needed while the API server has several --service-account-issuer. Default: none, and a
    /// former issuer for 24 h.
    #[arg(
        long = "token-issuer",
        env = "BEATKEEPER_TOKEN_ISSUERS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub token_issuers: Vec<String>,

    /// Let the API server review each token, and count its answer for 60 s. Default: verify tokens with the published
    /// keys of the cluster, which asks the API server nothing for a beat. Needs the right to create TokenReviews;
    /// otherwise the gateway needs the ClusterRole system:service-account-issuer-discovery.
    #[arg(long, env = "BEATKEEPER_TOKEN_REVIEW", value_parser = BoolishValueParser::new())]
    pub token_review: bool,

    /// The operator that this gateway belongs to, by the name of its election's Lease.
    #[arg(
        long,
        env = "BEATKEEPER_LEADER_ELECT_RESOURCE_NAME",
        value_name = "NAME",
        default_value = "beatkeeper",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub leader_elect_resource_name: String,

    /// The operator's --leader-elect-lease-duration. A beat waits this long, and 2 s more, for a leader.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_LEASE_DURATION", default_value = "5s", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_lease_duration: Duration,

    /// At SIGTERM, how long each answer tells its client to connect elsewhere. It should be one interval of the
    /// instances, and less than terminationGracePeriodSeconds by 5 s.
    #[arg(long, env = "BEATKEEPER_DRAIN_TIMEOUT", default_value = "10s", value_parser = beatkeeper_api::duration::parse)]
    pub drain_timeout: Duration,

    /// How long after its first stream of the operator, and after 2 s without one, the gateway proves no time. It has to be
    /// longer than the readiness probe and the Service need until instances reach the gateway: otherwise instances may be
    /// pruned that could not beat yet.
    #[arg(long, env = "BEATKEEPER_WARM_UP", default_value = "10s", value_parser = beatkeeper_api::duration::parse)]
    pub warm_up: Duration,

    /// How many connections of instances may be open at the same time. Further ones are closed before TLS.
    #[arg(long, env = "BEATKEEPER_MAX_CONNECTIONS", default_value = "8192")]
    pub max_connections: NonZeroUsize,

    /// How many connections one IP address may have open at the same time.
    #[arg(long, env = "BEATKEEPER_MAX_CONNECTIONS_PER_ADDRESS", default_value = "2048")]
    pub max_connections_per_address: NonZeroUsize,

    /// The format of the log: lines for people, or one JSON object a line.
    #[arg(long, env = "BEATKEEPER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl Args {
    pub(super) fn certificate(&self) -> CertificateFiles {
        CertificateFiles {
            certificate: self.cert_dir.join("tls.crt"),
            key: self.cert_dir.join("tls.key"),
        }
    }

    pub(super) fn stream_certificate(&self) -> PeerFiles {
        PeerFiles {
            own: CertificateFiles {
                certificate: self.streams_cert_dir.join("tls.crt"),
                key: self.streams_cert_dir.join("tls.key"),
            },
            ca: self.streams_cert_dir.join("ca.crt"),
            peer: self.operator_server_name.clone(),
        }
    }

    /// The issuers that are accepted besides. An empty variable names none.
    pub(super) fn token_issuers(&self) -> Vec<String> {
        self.token_issuers.iter().filter(|issuer| !issuer.is_empty()).cloned().collect()
    }

    pub(super) fn stream_limits(&self) -> StreamLimits {
        StreamLimits { warm_up: self.warm_up, ..StreamLimits::default() }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections.get(),
            connections_per_address: self.max_connections_per_address.get(),
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn further_issuers_are_given_one_by_one_or_with_commas_and_an_empty_one_is_none() {
        let needed = ["gateway", "--cert-dir", "a", "--streams-cert-dir", "b"];
        let issuers = ["--token-issuer", "https://a", "--token-issuer", "https://b,,https://c"];
        let parsed = |given: &[&str]| {
            let all = needed.iter().chain(given);
            Command::try_parse_from(all).unwrap().args.token_issuers()
        };
        assert_eq!(parsed(&issuers), ["https://a", "https://b", "https://c"]);
        assert!(parsed(&["--token-issuer", ""]).is_empty());
    }
}
