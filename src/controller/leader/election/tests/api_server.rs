//! An API server that keeps one Lease, for tests with a paused clock.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

/// How long a request is on its way, and its answer.
const TRIP: Duration = Duration::from_millis(2);

/// What the API server keeps.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The Lease; None if there is none.
    pub(super) lease: Option<Value>,
    /// The version of the last write.
    version: u64,
    /// Whether it answers nothing.
    pub(super) is_down: bool,
    /// How often the Lease was read.
    pub(super) reads: usize,
}

/// The API server.
#[derive(Debug, Clone, Default)]
pub(super) struct ApiServer(Arc<Mutex<Store>>);

impl ApiServer {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub(super) fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| server.clone().serve(request));
        kube::Client::new(service, "shop")
    }

    /// The annotation that lists gateways.
    pub(super) fn list(&self) -> Option<String> {
        let store = self.store();
        let annotations = &store.lease.as_ref()?["metadata"]["annotations"];
        annotations[beatkeeper_api::gateway::GATEWAYS_ANNOTATION].as_str().map(str::to_owned)
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect_bytes().await?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        tokio::time::sleep(TRIP).await;
        if self.store().is_down {
            return std::future::pending().await;
        }
        let (code, answer) = self.store().handle(&method, &path, body);
        tokio::time::sleep(TRIP).await;
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = code;
        Ok(response)
    }
}

impl Store {
    fn handle(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let is_collection = path.ends_with("/leases");
        match (method, &self.lease) {
            (&Method::POST, None) => (StatusCode::CREATED, self.write(body)),
            (&Method::POST, Some(_)) => failure(StatusCode::CONFLICT, "AlreadyExists"),
            // The election goes on by reads where it cannot watch.
            (_, _) if is_collection => failure(StatusCode::FORBIDDEN, "Forbidden"),
            (_, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::PATCH, Some(lease)) => {
                let expected = &body["metadata"]["resourceVersion"];
                if *expected != lease["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                let patched = merged(lease.clone(), body);
                (StatusCode::OK, self.write(patched))
            }
            (_, Some(lease)) => {
                self.reads += 1;
                (StatusCode::OK, lease.clone())
            }
        }
    }

    /// Keeps a Lease in this state, with a new version.
    pub(super) fn write(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        lease
    }

    /// Changes the Lease, as another process does.
    pub(super) fn patch(&mut self, patch: Value) {
        let lease = self.lease.clone().expect("a Lease");
        self.write(merged(lease, patch));
    }
}

fn failure(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "details": { "name": "beatkeeper", "kind": "leases" }, "code": code.as_u16(),
    });
    (code, status)
}

/// A JSON merge patch.
fn merged(mut before: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    if !before.is_object() {
        before = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => {
                before.as_object_mut().expect("an object").remove(&name);
            }
            value => {
                let inner = before[&name].take();
                before[&name] = merged(inner, value);
            }
        }
    }
    before
}
