//! Requests and answers in their form on the wire.

use http::{Method, Request, Uri};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::store::{Preconditions, Resource, Stored};

/// An error answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub name: String,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String, name: &str) -> Self {
        Self { code, reason, message, name: name.to_owned() }
    }

    pub fn absent(name: &str) -> Self {
        Self::new(404, "NotFound", format!("\"{name}\" not found"), name)
    }

    pub fn exists(name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("\"{name}\" already exists"), name)
    }

    pub fn conflict(name: &str) -> Self {
        Self::new(409, "Conflict", format!("\"{name}\" has been modified"), name)
    }

    /// The history that a watch or a continued list needs is no longer there.
    pub fn expired() -> Self {
        Self::new(410, "Expired", "The resourceVersion is too old.".to_owned(), "")
    }

    pub fn bad_request(message: String) -> Self {
        Self::new(400, "BadRequest", message, "")
    }

    /// One of the answers of an API server that does not work well.
    pub fn unavailable(which: usize) -> Self {
        let (code, reason) =
            [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")]
                [which % 3];
        Self::new(
            code,
            reason,
            "the server is currently unable to handle the request".to_owned(),
            "",
        )
    }

    pub fn body(&self) -> Bytes {
        let Self { code, reason, message, name } = self;
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code, "details": { "name": name },
        });
        serde_json::to_vec(&status).expect("JSON").into()
    }
}

/// Selects the objects that a list or a watch shows.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    label: Option<(String, Option<String>)>,
    name: Option<String>,
}

impl Selector {
    pub fn selects(&self, object: &Stored) -> bool {
        let metadata = &object.value["metadata"];
        let labelled = self.label.as_ref().is_none_or(|(label, value)| {
            match (metadata["labels"].get(label).and_then(Value::as_str), value) {
                (Some(found), Some(value)) => found == value,
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            }
        });
        labelled && self.name.as_ref().is_none_or(|name| metadata["name"] == name.as_str())
    }
}

#[derive(Debug, Clone)]
pub enum Ask {
    Get,
    List {
        limit: Option<usize>,
        token: Option<String>,
    },
    Watch {
        from: u64,
        /// After this many seconds the API server ends the watch.
        seconds: u64,
        bookmarks: bool,
    },
    Create(Value),
    Replace(Value),
    Patch(Value),
    Delete(Preconditions),
}

/// A parsed request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub ask: Ask,
    pub resource: Resource,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub of_status: bool,
    pub dry_run: bool,
    pub selector: Selector,
}

impl Asked {
    /// A request of a client that is not the operator.
    pub fn object(
        ask: Ask,
        resource: Resource,
        key: &beatkeeper_core::vocabulary::key::Key,
    ) -> Self {
        Self {
            ask,
            resource,
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            of_status: false,
            dry_run: false,
            selector: Selector::default(),
        }
    }

    /// Whether this writes, and what it writes is no Lease.
    pub fn is_write(&self) -> bool {
        !matches!(self.ask, Ask::Get | Ask::List { .. } | Ask::Watch { .. })
            && self.resource != "leases"
    }

    pub fn read(request: &Request<Bytes>) -> Option<Self> {
        let (uri, body) = (request.uri(), request.body());
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let skip = if parts.next() == Some("api") { 1 } else { 2 };
        let parts: Vec<&str> = parts.skip(skip).collect();
        let (namespace, rest) = match parts.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let resource = resource(rest.first()?)?;
        let name = rest.get(1).map(|name| (*name).to_owned());
        let query = Query::of(uri);
        let value = || serde_json::from_slice::<Value>(body).ok();
        let ask = match *request.method() {
            Method::GET if name.is_some() => Ask::Get,
            Method::GET if query.get("watch").is_some_and(|watch| watch != "false") => {
                let number = |name| query.get(name).and_then(|text| text.parse().ok());
                Ask::Watch {
                    from: number("resourceVersion").unwrap_or(0),
                    seconds: number("timeoutSeconds").unwrap_or(290),
                    bookmarks: query.get("allowWatchBookmarks").is_some_and(|it| it == "true"),
                }
            }
            Method::GET => Ask::List {
                limit: query.get("limit").and_then(|text| text.parse().ok()),
                token: query.get("continue"),
            },
            Method::POST => Ask::Create(value()?),
            Method::PUT => Ask::Replace(value()?),
            Method::PATCH => Ask::Patch(value()?),
            Method::DELETE => {
                let options = value().unwrap_or_default();
                let text =
                    |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
                Ask::Delete(Preconditions { uid: text("uid"), version: text("resourceVersion") })
            }
            _ => return None,
        };
        let label = query.get("labelSelector").map(|text| match text.split_once('=') {
            Some((label, value)) => (label.to_owned(), Some(value.trim_matches('=').to_owned())),
            None => (text, None),
        });
        let field = query.get("fieldSelector");
        let named = field.and_then(|text| text.strip_prefix("metadata.name=").map(str::to_owned));
        Some(Self {
            ask,
            resource,
            namespace: namespace.map(str::to_owned),
            name,
            of_status: rest.get(2) == Some(&"status"),
            dry_run: query.get("dryRun").is_some(),
            selector: Selector { label, name: named },
        })
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Self {
        let parts = uri.query().unwrap_or_default().split('&');
        Self(
            parts
                .filter_map(|part| part.split_once('='))
                .map(|(name, value)| (name.to_owned(), decode(value)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let code = high.zip(low).map_or(0, |(high, low)| high * 16 + low);
                bytes.push(u8::try_from(code).unwrap_or_default());
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

pub const RESOURCES: [(&str, &str, &str); 8] = [
    ("serviceregistrations", "ServiceRegistration", "beatkeeper.dev/v1alpha1"),
    ("leases", "Lease", "coordination.k8s.io/v1"),
    ("pods", "Pod", "v1"),
    ("services", "Service", "v1"),
    ("endpointslices", "EndpointSlice", "discovery.k8s.io/v1"),
    ("endpoints", "Endpoints", "v1"),
    ("nodes", "Node", "v1"),
    ("events", "Event", "events.k8s.io/v1"),
];

fn resource(name: &str) -> Option<Resource> {
    RESOURCES.iter().find(|(known, ..)| *known == name).map(|(known, ..)| *known)
}

/// The kind and the API version of a resource.
pub fn kind(resource: &str) -> (&'static str, &'static str) {
    let found = RESOURCES.iter().find(|(known, ..)| *known == resource);
    found.map_or(("", ""), |(_, kind, version)| (*kind, *version))
}
