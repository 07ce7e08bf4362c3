//! The answers, as Kubernetes writes them.

use std::time::Duration;

use beatkeeper_api::{
    beats::{BeatAnswer, BeatAnswers},
    duration,
    heartbeat::{INTERVAL_ANNOTATION, TTL_ANNOTATION},
};
use beatkeeper_core::{carriers::gateway::Answer, vocabulary::key::Key};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::http::refusal::Refused;

/// An answer, and whether the connection ends with it.
#[derive(Debug)]
pub struct Reply {
    /// The code.
    pub code: StatusCode,
    body: Vec<u8>,
    retry_after: Option<u64>,
    allow: Option<&'static str>,
    /// Whether the client has to connect anew, to another gateway if it can.
    pub closes: bool,
}

/// Whole seconds, rounded up: a header has no fractions.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// What is said about a beat that is not accepted.
struct Status<'a> {
    code: StatusCode,
    reason: &'static str,
    message: String,
    lease: Option<&'a Key>,
    field: Option<&'a str>,
    retry_after: Option<u64>,
}

impl Status<'_> {
    fn json(&self) -> Value {
        let mut details = serde_json::Map::new();
        if let Some(lease) = self.lease {
            details.insert("group".to_owned(), "coordination.k8s.io".into());
            details.insert("kind".to_owned(), "leases".into());
            details.insert("name".to_owned(), lease.name.clone().into());
        }
        if let Some(field) = self.field {
            let cause = json!([{ "field": field, "message": self.message }]);
            details.insert("causes".to_owned(), cause);
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code.as_u16(),
        })
    }
}

/// The code, the reason, the message and the wait of an answer to a beat that is not accepted.
fn denied(lease: &Key, answer: &Answer) -> (StatusCode, &'static str, String, Option<u64>) {
    match answer {
        // It is the caller who accepts.
        Answer::Accepted(_) => (StatusCode::OK, "", String::new(), None),
        Answer::Refused(why) => (StatusCode::FORBIDDEN, "Forbidden", why.to_string(), None),
        Answer::Unknown => {
            let message = format!(
                "there is no Lease {lease}: create it through the API server first, and then beat here"
            );
            (StatusCode::NOT_FOUND, "NotFound", message, None)
        }
        Answer::Unavailable { retry_after, cut_off } => {
            let why = match cut_off {
                true => {
                    "this gateway has no stream to any replica of the operator: try another one"
                }
                false => "no leader of the operator holds the beat yet: try again",
            };
            let wait = Some(seconds(*retry_after));
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why.to_owned(), wait)
        }
    }
}

/// The label of the metric of an answer.
pub fn label(answer: &Answer) -> &'static str {
    match answer {
        Answer::Accepted(_) => "accepted",
        Answer::Refused(_) => "refused",
        Answer::Unknown => "unknown",
        Answer::Unavailable { .. } => "unavailable",
    }
}

/// The answer to one beat.
pub fn beat(lease: &Key, answer: &Answer) -> Reply {
    if let Answer::Accepted(pace) = answer {
        let annotations = json!({
            TTL_ANNOTATION: duration::format(pace.ttl),
            INTERVAL_ANNOTATION: duration::format(pace.interval),
        });
        let metadata = json!({
            "namespace": lease.namespace, "name": lease.name, "annotations": annotations,
        });
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {},
        });
        return json_reply(StatusCode::OK, &object);
    }
    let (code, reason, message, retry_after) = denied(lease, answer);
    let status = Status { code, reason, message, lease: Some(lease), field: None, retry_after };
    let closes = matches!(answer, Answer::Unavailable { cut_off: true, .. });
    Reply { retry_after, closes, ..json_reply(code, &status.json()) }
}

/// The answer to many beats. `answers` has `None` where there is no answer yet.
pub fn beats(leases: Vec<Key>, answers: Vec<Result<Option<Answer>, Refused>>) -> Reply {
    let mut closes = false;
    let items = leases.into_iter().zip(answers).map(|(lease, answer)| {
        let (code, reason, message, retry_after) = match &answer {
            Ok(Some(Answer::Accepted(pace))) => {
                return BeatAnswer {
                    code: StatusCode::OK.as_u16(),
                    ttl: Some(duration::format(pace.ttl)),
                    interval: Some(duration::format(pace.interval)),
                    ..nothing(lease)
                };
            }
            Ok(Some(answer)) => {
                closes |= matches!(answer, Answer::Unavailable { cut_off: true, .. });
                denied(&lease, answer)
            }
            Ok(None) => {
                let retry_after = Duration::from_secs(1);
                denied(&lease, &Answer::Unavailable { retry_after, cut_off: false })
            }
            Err(refused) => {
                let (code, reason, _) = refused.code();
                (code, reason, refused.to_string(), refused.retry_after().map(seconds))
            }
        };
        BeatAnswer {
            code: code.as_u16(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            retry_after_seconds: retry_after,
            ..nothing(lease)
        }
    });
    let answers = BeatAnswers::of(items.collect());
    Reply { closes, ..json_reply(StatusCode::OK, &answers) }
}

fn nothing(lease: Key) -> BeatAnswer {
    BeatAnswer {
        namespace: lease.namespace,
        name: lease.name,
        code: 0,
        ttl: None,
        interval: None,
        reason: None,
        message: None,
        retry_after_seconds: None,
    }
}

/// The answer to a request that is no beat.
pub fn refused(lease: Option<&Key>, refused: &Refused) -> Reply {
    let (code, reason, _) = refused.code();
    let retry_after = refused.retry_after().map(seconds);
    let message = refused.to_string();
    let status = Status { code, reason, message, lease, field: refused.field(), retry_after };
    let allow = match refused {
        Refused::Method { allow, .. } => Some(*allow),
        _ => None,
    };
    Reply { retry_after, allow, closes: refused.closes(), ..json_reply(code, &status.json()) }
}

/// The answer to a beat of the gateway's own.
pub fn proven() -> Reply {
    json_reply(StatusCode::OK, &json!({}))
}

fn json_reply(code: StatusCode, body: &impl serde::Serialize) -> Reply {
    // These values have only text as keys, so they can always be written.
    let body = serde_json::to_vec(body).unwrap_or_default();
    Reply { code, body, retry_after: None, allow: None, closes: false }
}

impl Reply {
    /// The response. Only HTTP/1.1 has a header that ends a connection.
    pub fn response(self, version: http::Version) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.code == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.closes && version <= http::Version::HTTP_11 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
