//! Who wrote what: the API server's audit log.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::json;

/// One write that the API server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// `beatkeeper-admin`, `system:serviceaccount:NAMESPACE:NAME`, …
    pub user: String,
    /// As the client gave it; empty when it gave none.
    pub user_agent: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Empty for the core group.
    pub api_group: String,
    /// In the plural: `leases`.
    pub resource: String,
    /// `status`, `token`, …; empty for the object itself.
    pub subresource: String,
    /// Empty for what lives in no namespace.
    pub namespace: String,
    /// Empty for a collection, and for a create that lets the server choose the name or that was refused.
    pub name: String,
    /// The HTTP status code.
    pub code: u16,
    /// When the request came in.
    pub time: Timestamp,
}

impl AuditEntry {
    /// Whether the request was let through and done.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// A place in the log: what was answered before it and what after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditMark(pub(crate) u64);

pub(crate) fn policy_file(data: &Path) -> PathBuf {
    data.join("audit-policy.json")
}

pub(crate) fn log_file(data: &Path) -> PathBuf {
    data.join("audit.log")
}

/// Writes only, once they are answered, without bodies.
pub(crate) fn write_policy(data: &Path) -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [
            // The API server's own bookkeeping (leases of its identity, address ranges); no test is about it.
            { "level": "None", "users": ["system:apiserver"] },
            { "level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"] },
        ],
    });
    fs::write(policy_file(data), serde_json::to_string_pretty(&policy)?)
        .context("cannot write the audit policy")
}

/// The entries between two marks, in the order in which they were answered; the marks themselves are left out.
pub(crate) fn read(data: &Path, from: AuditMark, to: AuditMark) -> Result<Vec<AuditEntry>> {
    let path = log_file(data);
    let mut entries = Vec::new();
    for line in lines(data, from.0)? {
        let (end, line) = line?;
        if end > to.0 {
            break;
        }
        let event: Event = serde_json::from_str(&line)
            .with_context(|| format!("an entry of {} cannot be read: {line}", path.display()))?;
        if !event.user_agent.starts_with(MARKER) {
            entries.push(event.into());
        }
    }
    Ok(entries)
}

/// The user agent of the requests that do nothing but leave a mark in the log.
const MARKER: &str = "beatkeeper-cluster/audit-mark-";

/// How long the API server may take to log a request that it has answered.
const LOGGED_WITHIN: Duration = Duration::from_secs(10);

/// Leaves a mark: an entry that comes after those of all requests answered before.
///
/// Without it the last entry could be missing: the API server logs when a request's handler returns, which is a
/// moment after a client may have its answer. `client` makes clients with a given user agent.
pub(crate) async fn mark(
    data: &Path,
    client: impl Fn(&str) -> Result<Client>,
) -> Result<AuditMark> {
    let agent = format!("{MARKER}{:016x}", rand::random::<u64>());
    let before = last_line_end(data)?;
    if leave_mark(client(&agent)?).await.is_err() {
        // An API server that is down logs nothing more, so the end of the log is as good.
        return Ok(AuditMark(last_line_end(data)?));
    }
    let by = Instant::now() + LOGGED_WITHIN;
    while Instant::now() < by {
        for line in lines(data, before)? {
            let (end, line) = line?;
            if line.contains(&agent) {
                return Ok(AuditMark(end));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bail!(
        "a request was not logged within {LOGGED_WITHIN:?}; was the control plane started without audit?"
    )
}

/// Asking what oneself may do is a `create` that is stored nowhere.
async fn leave_mark(client: Client) -> Result<()> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/".to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    tokio::time::timeout(Duration::from_secs(5), reviews.create(&PostParams::default(), &review))
        .await??;
    Ok(())
}

/// The complete lines from an offset on, each with the offset of its end.
fn lines(data: &Path, from: u64) -> Result<impl Iterator<Item = Result<(u64, String)>>> {
    let path = log_file(data);
    let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let mut at = from;
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(read) if line.ends_with('\n') => {
                at += read as u64;
                Some(Ok((at, line)))
            }
            // The end, or a line in writing.
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        }
    }))
}

fn last_line_end(data: &Path) -> Result<u64> {
    const LONGEST_LINE: u64 = 1 << 20;
    let path = log_file(data);
    let size =
        fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?.len();
    let mut file = File::open(&path)?;
    let from = size.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(size - from).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n');
    Ok(end.map_or(from, |end| from + end as u64 + 1))
}

/// audit.k8s.io/v1 Event, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Event> for AuditEntry {
    fn from(event: Event) -> Self {
        let ObjectRef { api_group, resource, subresource, namespace, name } = event.object_ref;
        Self {
            user: event.user.username,
            user_agent: event.user_agent,
            verb: event.verb,
            api_group,
            resource,
            subresource,
            namespace,
            name,
            code: event.response_status.code,
            time: event.request_received_timestamp,
        }
    }
}
