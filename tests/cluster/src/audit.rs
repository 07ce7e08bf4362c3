//! Reads the API server's audit log: which client wrote which object.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
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
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Empty for a collection, for a create that was refused, and for a create that lets the server choose the
    /// name.
    pub name: String,
    /// The HTTP status code.
    pub code: u16,
    /// When the request arrived.
    pub time: Timestamp,
}

impl AuditEntry {
    /// Whether the request was allowed and succeeded.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// A position in the log: between the requests answered before it and the requests answered after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditMark(pub(crate) u64);

pub(crate) fn policy_file(data: &Path) -> PathBuf {
    data.join("audit-policy.json")
}

pub(crate) fn log_file(data: &Path) -> PathBuf {
    data.join("audit.log")
}

/// Logs only writes, when they are answered, and without bodies.
pub(crate) fn write_policy(data: &Path) -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [
            // The API server's own bookkeeping (leases of its identity, address ranges) is not logged: no test uses
            // it.
            { "level": "None", "users": ["system:apiserver"] },
            { "level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"] },
        ],
    });
    fs::write(policy_file(data), serde_json::to_string_pretty(&policy)?)
        .context("cannot write the audit policy")
}

/// The entries from the mark on, in the order in which they were answered.
pub(crate) fn read(data: &Path, from: AuditMark) -> Result<Vec<AuditEntry>> {
    let path = log_file(data);
    lines(data, from.0)?
        .map(|line| {
            let line = line?;
            let event: Event = serde_json::from_str(&line).with_context(|| {
                format!("an entry of {} cannot be read: {line}", path.display())
            })?;
            Ok(event.into())
        })
        .collect()
}

/// The complete lines from an offset on.
fn lines(data: &Path, from: u64) -> Result<impl Iterator<Item = Result<String>>> {
    let mut file = open(data)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => Some(Ok(line)),
            // The end of the log, or a line that is still being written.
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        }
    }))
}

/// Returns the position after everything that was answered so far.
///
/// The log needs no flush: in blocking mode the API server writes an entry while it handles the request, and a
/// response is complete only after that.
pub(crate) fn mark(data: &Path) -> Result<AuditMark> {
    const LONGEST_LINE: u64 = 1 << 20;
    let mut file = open(data)?;
    let size = file.metadata()?.len();
    let from = size.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(size - from).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n');
    Ok(AuditMark(end.map_or(from, |end| from + end as u64 + 1)))
}

fn open(data: &Path) -> Result<File> {
    let path = log_file(data);
    File::open(&path).with_context(|| {
        format!("cannot open {}: was the control plane started without audit?", path.display())
    })
}

/// The used fields of an audit.k8s.io/v1 Event.
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
