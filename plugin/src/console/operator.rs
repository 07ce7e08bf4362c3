//! What is known of the operator: its leader, the proof of the path of beats, and how long prunes take.
//!
//! Registrations tell nothing of this. It is read from the Lease of the election, from the probe of the leader and from
//! the leader's metrics, as far as the user may.

use std::{error::Error as _, time::Duration};

use beatkeeper_core::vocabulary::key::Key;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep, timeout},
};

use super::lag::{self, Lag};
use crate::{
    error::Problem,
    gather::{
        self,
        election::{self, ELECTION, Election},
        scope::Scope,
    },
    session::Session,
};

/// How often the metrics are read, and how often a missing Lease of the election is searched for.
const SELDOM: Duration = Duration::from_secs(10);
/// How long the metrics may take.
const METRICS_WITHIN: Duration = Duration::from_secs(3);
/// How much of the metrics is read. The operator's have less than a hundredth of it.
const METRICS_MAX: usize = 16 << 20;
/// The port of the metrics in the chart's Deployment.
const METRICS_PORT: u16 = 8080;
/// Where to look for the operator.
#[derive(Debug, Clone)]
pub struct Source {
    /// The Lease of the election; `None` to search for it.
    pub election: Option<Election>,
    /// Where the leader's metrics are.
    pub metrics: Metrics,
    /// How often the leader and its probe are read.
    pub every: Duration,
}

/// Where the leader's metrics are.
#[derive(Debug, Clone)]
pub enum Metrics {
    /// In its Pod, through the API server.
    OfPod,
    /// At this URL.
    At(Uri),
    /// They are not read.
    Unread,
}

/// What is known of the operator.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorReport {
    /// The leader.
    pub leader: Known<Leader>,
    /// When the leader last proved that beats arrive, in milliseconds since 1970.
    pub proof: Known<i64>,
    /// How long after their deadlines instances were pruned; `null` before the first prune.
    pub lag: Known<Option<Lag>>,
}

/// Something that is known, or why it is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Known<T> {
    /// It is known.
    Is(T),
    /// It is not known, and why.
    Unknown(String),
}

impl<T> From<Result<T, Unknown>> for Known<T> {
    fn from(read: Result<T, Unknown>) -> Self {
        match read {
            Ok(it) => Self::Is(it),
            Err(why) => Self::Unknown(why.to_string()),
        }
    }
}

/// The leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leader {
    /// The replica.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it renews its Lease.
    pub renews: bool,
}

/// Reads what is known of the operator, again and again, until the receiver is closed.
pub async fn follow(
    session: Session,
    scope: Scope,
    source: Source,
    reports: Sender<OperatorReport>,
) {
    let mut reader = Reader {
        session,
        scope,
        source,
        found: None,
        renewal: None,
        lag: Err(Unknown::NoLeader).into(),
        next_search: Instant::now(),
        next_metrics: Instant::now(),
    };
    loop {
        let report = reader.report().await;
        if reports.send(report).await.is_err() {
            return;
        }
        sleep(reader.source.every).await;
    }
}

struct Reader {
    session: Session,
    scope: Scope,
    source: Source,
    /// The Lease of the election, once it was found.
    found: Option<Key>,
    /// The renewal of the election's Lease that was seen last, and when it was seen first.
    renewal: Option<(String, Instant)>,
    lag: Known<Option<Lag>>,
    next_search: Instant,
    next_metrics: Instant,
}

impl Reader {
    async fn report(&mut self) -> OperatorReport {
        let leader = self.leader().await.into();
        let proof = match &leader {
            Known::Is(leader) => self.proof(leader).await,
            Known::Unknown(_) => Err(Unknown::NoLeader).into(),
        };
        if Instant::now() >= self.next_metrics {
            self.next_metrics = Instant::now() + SELDOM;
            self.lag = self.lag(&leader).await.map(|metrics| lag::read(&metrics)).into();
        }
        OperatorReport { leader, proof, lag: self.lag.clone() }
    }

    async fn leader(&mut self) -> Result<Leader, Unknown> {
        let election = match (&self.source.election, &self.found) {
            (Some(Election(key)), _) | (None, Some(key)) => key.clone(),
            (None, None) => self.search().await?,
        };
        let lease = match election::read(&self.session.client, &election).await {
            Ok(lease) => lease,
            Err(error) => {
                self.found = None;
                return Err(Unknown::Refused(Problem::of(&error)));
            }
        };
        let spec = &lease["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let (holder, renewed) = (text("holderIdentity"), text("renewTime"));
        if holder.is_empty() {
            return Err(Unknown::NoReplica);
        }
        let now = Instant::now();
        if self.renewal.as_ref().is_none_or(|(known, _)| *known != renewed) {
            let is_first = self.renewal.is_none();
            // A Lease that is read for the first time may be old. Its writer's clock is all there is to tell.
            let old = is_first && self.is_old(&renewed, spec);
            let long_ago = if old { now.checked_sub(SELDOM * 6).unwrap_or(now) } else { now };
            self.renewal = Some((renewed, long_ago));
        }
        let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or(5).max(2);
        let seen = self.renewal.as_ref().map_or(now, |(_, seen)| *seen);
        let renews = now.duration_since(seen) < Duration::from_secs(seconds) + self.source.every;
        let name = beatkeeper_api::text::plain(&holder).into_owned();
        Ok(Leader { name, namespace: election.namespace, renews })
    }

    fn is_old(&self, renewed: &str, spec: &Value) -> bool {
        let seconds = spec["leaseDurationSeconds"].as_i64().unwrap_or(5);
        let age = renewed.parse().map(|at: Timestamp| self.session.clock.now().duration_since(at));
        age.is_ok_and(|age| age.as_secs() > seconds + 30)
    }

    async fn search(&mut self) -> Result<Key, Unknown> {
        if Instant::now() < self.next_search {
            return Err(Unknown::NoElection);
        }
        self.next_search = Instant::now() + SELDOM;
        self.found = election::find(&self.session.client, self.scope.namespace()).await;
        self.found.clone().ok_or(Unknown::NoElection)
    }

    /// When the leader's probe was last renewed. It lies in the operator's namespace, or in the watched one.
    async fn proof(&self, leader: &Leader) -> Known<i64> {
        let probe = format!("beatkeeper-probe-{}", leader.name);
        let mut why = format!("there is no Lease {probe}");
        let namespaces = [Some(leader.namespace.as_str()), self.scope.namespace()];
        for namespace in namespaces.into_iter().flatten() {
            match gather::lease(&self.session.client, namespace, &probe).await {
                Ok(Some(lease)) => {
                    if let Some(beat) = lease.beat {
                        return Known::Is(beat.at.as_millisecond());
                    }
                }
                Ok(None) => {}
                Err(error) => why = Problem::of(&error).brief(),
            }
        }
        Known::Unknown(why)
    }

    async fn lag(&self, leader: &Known<Leader>) -> Result<String, Unknown> {
        let read = async {
            match (&self.source.metrics, leader) {
                (Metrics::At(url), _) => fetch(url).await,
                (Metrics::OfPod, Known::Is(leader)) => of_pod(&self.session.client, leader).await,
                (Metrics::OfPod, Known::Unknown(_)) => Err(Unknown::NoLeader),
                (Metrics::Unread, _) => Err(Unknown::Unread),
            }
        };
        timeout(METRICS_WITHIN, read).await.map_err(|_| Unknown::Late)?
    }
}

/// Why something of the operator is not known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("no Lease {ELECTION} of an election found; name it with --election")]
    NoElection,
    #[error("no replica leads")]
    NoReplica,
    #[error("the leader is not known")]
    NoLeader,
    #[error("{}", .0.brief())]
    Refused(Problem),
    #[error("a console in the cluster does not read the metrics; the dashboards show it")]
    Unread,
    #[error("the metrics do not answer")]
    Late,
    #[error("the metrics do not answer: {0}")]
    NoAnswer(String),
    #[error(
        "the operator serves its metrics over TLS to readers with a token (--metrics-secure), and the console has none"
    )]
    Guarded,
}

/// The metrics of the leader's Pod, through the API server.
async fn of_pod(client: &Client, leader: &Leader) -> Result<String, Unknown> {
    let Leader { name, namespace, .. } = leader;
    let pod = election::pod_of(name);
    let read = async |scheme: &str| {
        let pod = format!("{scheme}{pod}:{METRICS_PORT}");
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new());
        client.request_text(request.map_err(kube::Error::HttpError)?).await
    };
    let error = match read("").await {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    // To plain HTTP, guarded metrics give no answer. Over TLS they do, but the API server keeps the user's token to
    // itself.
    if code(&error).is_some_and(|code| code >= 500)
        && read("https:").await.err().and_then(|error| code(&error)) == Some(401)
    {
        return Err(Unknown::Guarded);
    }
    Err(Unknown::Refused(Problem::of(&error)))
}

/// The HTTP status of an error that the API server, or what is behind it, has answered with.
fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What a URL answers.
async fn fetch(url: &Uri) -> Result<String, Unknown> {
    let failed = |error: &dyn std::error::Error| Unknown::NoAnswer(error.to_string());
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let answer = client.get(url.clone()).await.map_err(|error| {
        // A server that speaks TLS answers plain HTTP with a TLS alert.
        let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
        if cause.is_some_and(hyper::Error::is_parse) { Unknown::Guarded } else { failed(&error) }
    })?;
    if !answer.status().is_success() {
        return Err(Unknown::NoAnswer(answer.status().to_string()));
    }
    let body = Limited::new(answer.into_body(), METRICS_MAX).collect().await;
    let body = body.map_err(|error| Unknown::NoAnswer(error.to_string()))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
