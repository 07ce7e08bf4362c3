//! The command line of `beatkeeper controller`.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use clap::ArgAction;
use ipnet::IpNet;

use crate::bind_address::BindAddress;
use crate::controller::carriers::args::{GatewayArgs, GatewaySettings};
use crate::controller::leader::args::{ElectionSettings, LeaderArgs};
use crate::controller::trace::args::{TraceArgs, TraceSettings};
use beatkeeper_core::{
    plan::{build::PlanSettings, target::DEFAULT_MAX_ENDPOINTS_PER_SLICE},
    replica::leader::DurationsError,
    vocabulary::address::{OutsideRange, OutsideRanges, ParseRangeError},
};

/// Runs the operator: publishes the instances that beat, and prunes those that stopped.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Watch only this namespace; may be given several times. Default: all namespaces. Zones, which come from Nodes,
    /// are published only if all namespaces are watched.
    #[arg(
        long = "namespace",
        value_name = "NAMESPACE",
        env = "BEATKEEPER_NAMESPACES",
        value_delimiter = ','
    )]
    pub namespaces: Vec<String>,

    /// Allow outside instances of a namespace to have addresses in this range; may be given several times.
    /// Default: none, so that only Pods are published.
    #[arg(
        long = "outside-range",
        value_name = "NAMESPACE=CIDR",
        env = "BEATKEEPER_OUTSIDE_RANGES",
        value_delimiter = ',',
        value_parser = outside_range
    )]
    pub outside_ranges: Vec<Option<OutsideRange>>,

    /// A network of the cluster's Pods, Services or Nodes; may be given several times. No outside instance
    /// may have an address in it, whatever --outside-range says. Needed with --namespace and --outside-range
    /// if the operator may not list and watch the Pods, Services and EndpointSlices of all namespaces:
    /// otherwise it does not know which addresses they use.
    #[arg(
        long = "cluster-network",
        value_name = "CIDR",
        env = "BEATKEEPER_CLUSTER_NETWORKS",
        value_delimiter = ',',
        value_parser = network
    )]
    pub cluster_networks: Vec<Option<IpNet>>,

    /// Write Endpoints objects beside the EndpointSlices. If false, existing ones of the operator are removed.
    #[arg(long, env = "BEATKEEPER_PUBLISH_ENDPOINTS", default_value_t = true, action = ArgAction::Set)]
    pub publish_endpoints: bool,

    /// Largest number of endpoints in a slice, 1 to 1000.
    #[arg(
        long,
        env = "BEATKEEPER_MAX_ENDPOINTS_PER_SLICE",
        default_value_t = DEFAULT_MAX_ENDPOINTS_PER_SLICE as u16,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub max_endpoints_per_slice: u16,

    /// How often to delete Leases of outside instances that have been silent for ten times their ttl, as a
    /// duration such as 30s. At the same interval, a standby replica reads Leases missing from its watch, to
    /// forget those that were deleted.
    #[arg(long, env = "BEATKEEPER_SWEEP_INTERVAL", default_value = "30s", value_parser = beatkeeper_api::duration::parse)]
    pub sweep_interval: Duration,

    /// Decide and report everything, in status and events, but publish, change and remove nothing.
    #[arg(long, env = "BEATKEEPER_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    pub dry_run: bool,

    /// How many registrations are reconciled at the same time.
    #[arg(long, env = "BEATKEEPER_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// Leader election.
    #[command(flatten)]
    pub leader: LeaderArgs,
    /// How many calls to the API server, except watches, may run at the same time. Status, events and the
    /// sweep may use a sixteenth of them, so that they never delay a prune.
    #[arg(long, env = "BEATKEEPER_MAX_PARALLEL_API_CALLS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..))]
    pub max_parallel_api_calls: u16,

    /// Where to answer /metrics: HOST:PORT, :PORT for all addresses, 0 for nowhere.
    #[arg(long, env = "BEATKEEPER_METRICS_BIND_ADDRESS", value_name = "ADDR", default_value = "0")]
    pub metrics_bind_address: BindAddress,

    /// Serve /metrics over TLS, and only to a bearer token whose user may get the path /metrics: answer 401 without a
    /// token that the API server accepts, and 403 to other users. Needs the rights to create TokenReviews and
    /// SubjectAccessReviews.
    #[arg(long, env = "BEATKEEPER_METRICS_SECURE", value_parser = clap::builder::BoolishValueParser::new())]
    pub metrics_secure: bool,

    /// With --metrics-secure, a folder with tls.crt and tls.key in PEM format, read again when they change. Default: a
    /// certificate that is made at the start, which clients cannot verify.
    #[arg(
        long,
        env = "BEATKEEPER_METRICS_CERT_PATH",
        value_name = "FOLDER",
        requires = "metrics_secure"
    )]
    pub metrics_cert_path: Option<PathBuf>,

    /// Where to answer /explain/NAMESPACE/REGISTRATION/INSTANCE with what this replica knows of an instance: HOST:PORT,
    /// :PORT for all addresses, 0 for nowhere. It is served over TLS, and only to a bearer token for the audience
    /// explain.beatkeeper.dev whose user may get the ServiceRegistration. Needs --leader-elect, because the leader tells
    /// its certificate in the Lease of the election; and the rights to create TokenReviews and SubjectAccessReviews.
    #[arg(long, env = "BEATKEEPER_EXPLAIN_BIND_ADDRESS", value_name = "ADDR", default_value = "0")]
    pub explain_bind_address: BindAddress,

    /// Where to answer /livez and /readyz: HOST:PORT, :PORT for all addresses, 0 for nowhere. May be the same address
    /// as for the metrics, unless those are secure.
    #[arg(
        long,
        env = "BEATKEEPER_HEALTH_PROBE_BIND_ADDRESS",
        value_name = "ADDR",
        default_value = "0"
    )]
    pub health_probe_bind_address: BindAddress,

    /// Serve metrics for the instances of each registration as well, for at most 1000 registrations.
    #[arg(long, env = "BEATKEEPER_METRICS_PER_REGISTRATION", value_parser = clap::builder::BoolishValueParser::new())]
    pub metrics_per_registration: bool,

    /// The format of the log: lines for people, or one JSON object a line.
    #[arg(long, env = "BEATKEEPER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Gateways.
    #[command(flatten)]
    pub gateways: GatewayArgs,

    /// Traces.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Returns None if the variable is set to the empty text, as templates often do.
fn outside_range(text: &str) -> Result<Option<OutsideRange>, ParseRangeError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Parses a network, or a single address as a network of one address. Returns None for the empty text.
fn network(text: &str) -> Result<Option<IpNet>, ParseNetworkError> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    match text.parse().ok().or_else(alone) {
        _ if text.is_empty() => Ok(None),
        Some(network) => Ok(Some(network)),
        None => Err(ParseNetworkError(text.to_owned())),
    }
}

/// Why a text is not a network.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no network; write for example 10.244.0.0/16")]
struct ParseNetworkError(String);

/// The settings of the operator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespaces to watch. All namespaces if it is empty.
    pub namespaces: BTreeSet<String>,
    /// The outside ranges of the namespaces.
    pub outside_ranges: OutsideRanges,
    /// Whether Endpoints objects are written.
    pub publish_endpoints: bool,
    /// The largest number of endpoints in a slice, 1 to 1000.
    pub max_endpoints_per_slice: usize,
    /// The pause between two sweeps.
    pub sweep_interval: Duration,
    /// Whether everything is only decided and reported, and nothing is published.
    pub dry_run: bool,
    /// How many registrations are reconciled at the same time.
    pub concurrency: u16,
    /// The settings of leader election; None without leader election.
    pub election: Option<ElectionSettings>,
    /// How many calls to the API server, except watches, run at the same time.
    pub max_parallel_api_calls: u16,
    /// Where to answer scrapes of the metrics.
    pub metrics_bind_address: BindAddress,
    /// How the metrics are guarded; None if they are plain.
    pub secure_metrics: Option<SecureMetrics>,
    /// Where to explain instances.
    pub explain_bind_address: BindAddress,
    /// Where to answer health probes.
    pub health_probe_bind_address: BindAddress,
    /// Whether each registration has series of its own.
    pub metrics_per_registration: bool,
    /// How gateways are reached; None if there are none.
    pub gateways: Option<GatewaySettings>,
    /// Where traces are sent; None if they are not.
    pub traces: Option<TraceSettings>,
}

/// How the metrics are guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureMetrics {
    /// The folder of the certificate and its key; None to make them at the start.
    pub certificate: Option<PathBuf>,
}

/// Why settings do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The durations of the leader election.
    #[error(transparent)]
    Durations(#[from] DurationsError),
    /// Health probes would need a token.
    #[error(
        "--metrics-secure needs another --metrics-bind-address than --health-probe-bind-address: the kubelet's probes \
         bring no token"
    )]
    SharedAddress,
    /// Readers of explanations would not know the certificate.
    #[error(
        "--explain-bind-address needs --leader-elect: the Lease of the election tells readers where the leader is, and \
         which certificate it has"
    )]
    NoElection,
    /// Gateways would not know which replica to listen to.
    #[error(
        "--gateway-cert-dir needs --leader-elect: gateways accept a beat when the elected leader holds it. Set \
         --leader-elect, also for one replica"
    )]
    NoElectionForGateways,
    /// Each scope would answer for the instances of all.
    #[error(
        "--gateway-cert-dir does not work with {0} namespaces in --namespace: watch one namespace or all of them"
    )]
    SeveralScopes(usize),
}

impl Settings {
    /// Whether this replica explains instances.
    pub(crate) fn explains(&self) -> bool {
        self.explain_bind_address != BindAddress::Off
    }

    /// How to publish.
    pub(crate) fn style(&self) -> PlanSettings {
        PlanSettings {
            publish_endpoints: self.publish_endpoints,
            max_endpoints_per_slice: self.max_endpoints_per_slice,
        }
    }
}

/// How gateways are reached, if that fits the other settings.
fn with_gateways(
    gateways: GatewayArgs,
    elects: bool,
    namespaces: usize,
) -> Result<Option<GatewaySettings>, SettingsError> {
    match gateways.settings() {
        Some(_) if !elects => Err(SettingsError::NoElectionForGateways),
        Some(_) if namespaces > 1 => Err(SettingsError::SeveralScopes(namespaces)),
        gateways => Ok(gateways),
    }
}

impl TryFrom<Args> for Settings {
    type Error = SettingsError;

    fn try_from(args: Args) -> Result<Self, SettingsError> {
        let Args {
            namespaces,
            outside_ranges,
            cluster_networks,
            publish_endpoints,
            max_endpoints_per_slice,
            sweep_interval,
            dry_run,
            concurrency,
            leader,
            max_parallel_api_calls,
            metrics_bind_address,
            metrics_secure,
            metrics_cert_path: certificate,
            explain_bind_address,
            health_probe_bind_address,
            metrics_per_registration,
            gateways,
            traces,
            // The command line sets up the log.
            log_format: _,
        } = args;
        if metrics_secure && metrics_bind_address == health_probe_bind_address {
            match &metrics_bind_address {
                // Each gets a port of its own.
                BindAddress::At(address) if address.ends_with(":0") => {}
                BindAddress::At(_) => return Err(SettingsError::SharedAddress),
                BindAddress::Off => {}
            }
        }
        let election = leader.settings()?;
        if election.is_none() && explain_bind_address != BindAddress::Off {
            return Err(SettingsError::NoElection);
        }
        // A namespace that is given twice is watched once. Otherwise two controllers would write the same objects.
        let namespaces: BTreeSet<String> =
            namespaces.into_iter().filter(|name| !name.is_empty()).collect();
        let gateways = with_gateways(gateways, election.is_some(), namespaces.len())?;
        Ok(Self {
            namespaces,
            outside_ranges: outside_ranges
                .into_iter()
                .flatten()
                .collect::<OutsideRanges>()
                .without(cluster_networks.into_iter().flatten().collect()),
            publish_endpoints,
            max_endpoints_per_slice: max_endpoints_per_slice.into(),
            sweep_interval,
            dry_run,
            concurrency,
            election,
            max_parallel_api_calls,
            metrics_bind_address,
            secure_metrics: metrics_secure.then_some(SecureMetrics { certificate }),
            explain_bind_address,
            health_probe_bind_address,
            metrics_per_registration,
            gateways,
            traces: traces.settings(),
        })
    }
}
