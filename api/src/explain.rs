//! What a replica of the operator knows of one instance: its answer to `GET /explain/NAMESPACE/REGISTRATION/INSTANCE`.
//!
//! The operator writes it and the kubectl plugin reads it. `docs/explain.md` describes each field for users. All spans of
//! time are seconds by the replica's own monotonic clock, at the moment of the answer.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

/// The version of the answer. A reader refuses a version that it does not know; further fields do not change it.
pub const EXPLAIN_VERSION: &str = "explain.beatkeeper.dev/v1";
/// The audience of the tokens that `/explain` accepts. Such a token is worth nothing elsewhere.
pub const EXPLAIN_AUDIENCE: &str = "explain.beatkeeper.dev";
/// Annotation of the election's Lease: where and with which certificate the leader answers, as an [`ExplainEndpoint`].
pub const EXPLAIN_ANNOTATION: &str = "beatkeeper.dev/explain";

/// The kind of the answer.
const KIND: &str = "Explanation";

/// Where the leader answers `/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainEndpoint {
    /// The port in its Pod.
    pub port: u16,
    /// The certificate that it shows, as DER. It is no certificate of a CA: only this one is to be trusted.
    pub certificate: ByteString,
}

/// The path of an instance. An instance whose Lease has no fitting name has a slash in its name.
pub fn explain_path(namespace: &str, registration: &str, instance: &str) -> String {
    format!("/explain/{namespace}/{registration}/{}", instance.replace('/', "%2F"))
}

/// What a replica knows of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// [`EXPLAIN_VERSION`].
    pub api_version: String,
    /// `Explanation`.
    pub kind: String,
    /// The namespace of the registration.
    pub namespace: String,
    /// The name of the registration.
    pub registration: String,
    /// The name of the instance.
    pub instance: String,
    /// The replica that answers.
    pub replica: ExplainReplica,
    /// What it has observed of the Lease; none if it knows no Lease of this instance.
    pub lease: Option<ExplainLease>,
    /// How far time is proven (L3).
    pub proof: ExplainProof,
    /// What the outage guard has found (L6); none if it finds the path whole, or was not asked.
    pub outage: Option<ExplainOutage>,
    /// What protection.minReady does (L7).
    pub min_ready: ExplainMinReady,
    /// The last decision that was reported; none on a replica that has not decided in this term.
    pub decision: Option<ExplainDecision>,
    /// In how many seconds it looks at the registration again, if nothing wakes it before.
    pub next_look: Option<f64>,
}

/// The replica that answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainReplica {
    /// Its name, as the election's Lease has it.
    pub name: String,
    /// Whether it leads. A replica that stands by observes, too, but decides nothing.
    pub leads: bool,
    /// The number of its term, counted since the process started; none if it does not lead.
    pub term: Option<u64>,
    /// How many seconds ago it began to publish in this term.
    pub term_began: Option<f64>,
}

/// What a replica has observed of a Lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainLease {
    /// Its name.
    pub name: String,
    /// Whether the watch shows it.
    pub presence: ExplainPresence,
    /// The name of the gateway that brought its last beat; none if the beat renewed the Lease.
    #[serde(default)]
    pub gateway: Option<String>,
    /// How many seconds ago its token was last seen to change (L1), or a gateway brought a beat.
    pub last_change: f64,
    /// How its token came to be known.
    pub provenance: ExplainProvenance,
    /// For how many seconds its silence counts, with what earlier processes have proven (L5).
    pub silence: f64,
    /// How many seconds lay between the last two beats that were seen.
    pub last_interval: Option<f64>,
    /// For how many seconds its beats have kept the pace of the spec (L8).
    pub pace_kept: f64,
    /// The ttl that applies to it, in seconds (L8).
    pub ttl: f64,
    /// In how many seconds its ttl passes in proven time; negative if it has passed.
    pub deadline: f64,
    /// The gaps since its last beat that are long enough to move its deadline, the latest last.
    pub gaps: Vec<ExplainGap>,
    /// How many seconds ago the last live read was sent that showed the same token (L2).
    pub live_read: Option<f64>,
    /// Whether a live read was sent after the deadline, and showed the same token.
    pub read_after_deadline: bool,
    /// How many seconds ago it was decided to be dead. Then only a new token revives it.
    pub expired: Option<f64>,
    /// Whether its next beat wakes the registration, so that it is decided anew.
    pub next_beat_wakes: bool,
    /// Whether the last decision was to publish it.
    pub published: bool,
}

/// Whether the watch shows a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExplainPresence {
    /// The watch shows it.
    Watched,
    /// The watch shows it no longer. A live read decides whether it is gone (L4).
    Missing,
    /// It has lost its label, so only live reads show its beats.
    Unlabelled,
}

/// How a token came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExplainProvenance {
    /// It was seen to change, or to appear.
    Changed,
    /// It was there when the process started.
    Inherited,
    /// The same, and the instance was published: it has one ttl to beat (L5).
    Granted,
    /// The Lease appeared with a beat that is older than itself, as from a backup.
    Restored,
}

/// A time that does not count as silence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainGap {
    /// How many seconds ago it began.
    pub from: f64,
    /// How many seconds ago it ended.
    pub to: f64,
    /// What has found it.
    pub found_by: ExplainFoundBy,
}

/// What has found a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExplainFoundBy {
    /// The probe did not come back (L3).
    Probe,
    /// Almost no beats arrived (L6).
    Guard,
}

/// How far time is proven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainProof {
    /// How many seconds ago the last renewal of the probe that came back was sent; none before the first one.
    pub last: Option<f64>,
    /// Whether it proves the time up to the deadline; none before the deadline.
    pub reaches_deadline: Option<bool>,
    /// Says why no renewal comes back; none if renewals come back.
    pub message: Option<String>,
}

/// A path of the beats that is broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainOutage {
    /// The namespace in which almost no beats arrive; none if it is the whole cluster.
    pub namespace: Option<String>,
    /// For how many seconds.
    pub since: f64,
    /// For how many more seconds it may hold this instance.
    pub holds_for: Option<f64>,
}

/// What protection.minReady does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainMinReady {
    /// Its value.
    pub wanted: usize,
    /// How many instances were ready at the last decision, without those that it holds.
    pub ready: Option<usize>,
    /// How many it holds.
    pub held: Option<usize>,
}

/// The last decision about the instance that was reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainDecision {
    /// How many seconds ago.
    pub at: f64,
    /// The state.
    pub state: String,
    /// The reason, as one word.
    pub reason: String,
    /// The reason in words.
    pub message: String,
}

impl Explanation {
    /// An answer about nothing that is known yet.
    pub fn of(
        namespace: &str,
        registration: &str,
        instance: &str,
        replica: ExplainReplica,
        min_ready: usize,
    ) -> Self {
        Self {
            api_version: EXPLAIN_VERSION.to_owned(),
            kind: KIND.to_owned(),
            namespace: namespace.to_owned(),
            registration: registration.to_owned(),
            instance: instance.to_owned(),
            replica,
            lease: None,
            proof: ExplainProof { last: None, reaches_deadline: None, message: None },
            outage: None,
            min_ready: ExplainMinReady { wanted: min_ready, ready: None, held: None },
            decision: None,
            next_look: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PAGE: &str = include_str!("../../docs/explain.md");

    fn example() -> &'static str {
        PAGE.split_once("```json\n").unwrap().1.split_once("```").unwrap().0
    }

    fn keys(value: &Value, all: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                all.push(key.clone());
                keys(value, all);
            }),
            Value::Array(items) => items.iter().for_each(|item| keys(item, all)),
            _ => {}
        }
    }

    #[test]
    fn the_example_of_the_page_has_each_field_and_no_other_and_the_page_tells_of_each() {
        let read: Explanation = serde_json::from_str(example()).unwrap();
        let written = serde_json::to_string_pretty(&read).unwrap();
        assert_eq!(written, example().trim_end());
        let mut all = Vec::new();
        keys(&serde_json::from_str(example()).unwrap(), &mut all);
        let table = PAGE.split_once("| Field | Meaning |").unwrap().1;
        for key in all {
            assert!(table.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[test]
    fn a_path_has_four_parts_whatever_the_name_of_the_instance() {
        assert_eq!(explain_path("shop", "greeter", "vm-1"), "/explain/shop/greeter/vm-1");
        assert_eq!(explain_path("shop", "greeter", "lease/x"), "/explain/shop/greeter/lease%2Fx");
    }
}
