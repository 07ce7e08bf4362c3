//! Tests of the loop against a fake API server that serves only the Lease, with any webhook.

mod carried;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use beatkeeper_api::heartbeat::{HEALTH_ANNOTATION, Health, NOTE_ANNOTATION};
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::{
    Connection, OneShot,
    headers::Headers,
    lease::{HealthReport, Identity, Location, Owner},
};

/// A webhook that changes the written object.
type Webhook = fn(&mut Value);

/// One Lease, and its versions.
#[derive(Clone)]
struct Api(Arc<Mutex<State>>);

struct State {
    webhook: Webhook,
    lease: Option<Value>,
    version: u64,
    /// The renewTimes that a watch has shown.
    shown: Vec<String>,
    /// The spec of the registration.
    spec: Value,
    /// Whether every request is answered 503.
    down: bool,
}

impl Api {
    fn with(webhook: Webhook) -> Self {
        let spec = json!({ "ttl": "3s", "interval": "1s" });
        let (lease, shown) = (None, Vec::new());
        let state = State { webhook, lease, version: 0, shown, spec, down: false };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    fn connection(&self) -> Connection {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let kind = head.headers.get("content-type").cloned();
                let kind = kind.and_then(|kind| kind.to_str().ok().map(str::to_owned));
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (status, answer) =
                    api.answer(&head.method, head.uri.path(), kind.as_deref(), body);
                let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        Connection {
            client: Client::new(service, "shop"),
            headers: Headers::default(),
            gateway: None,
        }
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        kind: Option<&str>,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut state = self.state();
        if state.down {
            return (StatusCode::SERVICE_UNAVAILABLE, status(StatusCode::SERVICE_UNAVAILABLE));
        }
        if path.contains("/serviceregistrations/") {
            let instance = json!({ "name": "vm-1", "state": "Ready", "reason": "Beating" });
            let registration = json!({
                "metadata": { "name": "greeter" }, "spec": state.spec,
                "status": { "total": 1, "instances": [instance] },
            });
            return (StatusCode::OK, registration);
        }
        let lease = match (method, state.lease.clone()) {
            (&Method::POST, None) => Ok(merged(json!({ "metadata": { "uid": "u" } }), &body)),
            (_, None) => Err(StatusCode::NOT_FOUND),
            (&Method::GET, Some(lease)) => return (StatusCode::OK, lease),
            (&Method::DELETE, Some(lease)) => {
                state.lease = None;
                return (StatusCode::OK, lease);
            }
            (_, Some(lease)) if kind == Some("application/json-patch+json") => {
                patched(lease, &body).ok_or(StatusCode::UNPROCESSABLE_ENTITY)
            }
            (_, Some(lease)) => Ok(merged(lease, &body)),
        };
        match lease {
            Ok(lease) => (StatusCode::OK, state.store(lease)),
            Err(code) => (code, status(code)),
        }
    }
}

fn status(code: StatusCode) -> Value {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    json!({
        "kind": "Status", "status": "Failure", "reason": reason, "message": "no",
        "code": code.as_u16(),
    })
}

impl State {
    /// Stores a Lease. A write that changes nothing makes no new version, and no watch shows it.
    fn store(&mut self, mut lease: Value) -> Value {
        (self.webhook)(&mut lease);
        if self.lease.as_ref() != Some(&lease) {
            self.version += 1;
            lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
            let renewed = lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
            if self.shown.last() != Some(&renewed) {
                self.shown.push(renewed);
            }
            self.lease = Some(lease.clone());
        }
        lease
    }
}

/// Applies a merge patch (RFC 7396).
fn merged(mut into: Value, patch: &Value) -> Value {
    for (key, value) in patch.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(into.as_object_mut().and_then(|all| all.remove(key))),
            Value::Object(_) => into[key] = merged(into[key].take(), value),
            value => into[key] = value.clone(),
        }
    }
    into
}

/// Applies the parts of a JSON Patch (RFC 6902) that beats use. `None`: a test failed.
fn patched(mut lease: Value, operations: &Value) -> Option<Value> {
    for operation in operations.as_array()? {
        let path = operation["path"].as_str()?;
        let (parent, name) = path.rsplit_once('/')?;
        let name = name.replace("~1", "/").replace("~0", "~");
        match operation["op"].as_str()? {
            "test" if lease.pointer(path) != Some(&operation["value"]) => return None,
            "test" => {}
            "add" => lease.pointer_mut(parent)?[&name] = operation["value"].clone(),
            _ => drop(lease.pointer_mut(parent)?.as_object_mut()?.remove(&name)?),
        }
    }
    Some(lease)
}

fn identity() -> Identity {
    Identity {
        namespace: "shop".to_owned(),
        registration: "greeter".to_owned(),
        instance: "vm-1".to_owned(),
        home: Location::Outside(vec!["192.0.2.1".parse().expect("an IP")]),
        version: None,
        metadata: BTreeMap::new(),
    }
}

/// The events so far.
type Diary = Arc<Mutex<Vec<Event>>>;

fn heartbeat_loop(api: &Api, options: BeatOptions) -> (HeartbeatLoop, Diary) {
    let diary = Diary::default();
    let (_, health) = watch::channel(HealthReport::default());
    let writes = Arc::clone(&diary);
    let report: Report =
        Arc::new(move |event| writes.lock().expect("no panic").push(event.clone()));
    (HeartbeatLoop::new(api.connection(), identity(), options, health, report), diary)
}

/// Beats until `count` beats were stored.
async fn beats(api: &Api, count: usize) -> Vec<Event> {
    let interval = Some(Duration::from_millis(200));
    let (heartbeat_loop, diary) =
        heartbeat_loop(api, BeatOptions { interval, ..BeatOptions::default() });
    let stop = CancellationToken::new();
    let running = tokio::spawn(heartbeat_loop.run(stop.clone()));
    let mut last = 0;
    for _ in 0..100 * count {
        last = api.state().shown.len();
        if last >= count {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(last >= count, "{last} times were stored: {:?}", diary.lock());
    stop.cancel();
    running.await.expect("no panic").expect("deregistered");
    assert_eq!(api.state().lease, None);
    let diary = diary.lock().expect("no panic");
    diary.clone()
}

fn troubles(diary: &[Event]) -> Vec<String> {
    let trouble = diary.iter().filter(|event| event.weight() == crate::event::Severity::Warning);
    let publication = |event: &&Event| !matches!(event, Event::Publication { .. });
    trouble.filter(publication).map(Event::to_string).collect()
}

fn renewed(lease: &Value) -> Option<Timestamp> {
    lease["spec"]["renewTime"].as_str()?.parse().ok()
}

fn store(lease: &mut Value, at: Timestamp) {
    lease["spec"]["renewTime"] = json!(beatkeeper_api::heartbeat::renew_time(at));
}

fn cut_to_seconds(lease: &mut Value) {
    if let Some(at) = renewed(lease) {
        store(lease, Timestamp::from_second(at.as_second()).expect("in range"));
    }
}

fn rounded_up_to_seconds(lease: &mut Value) {
    if let Some(at) = renewed(lease) {
        let seconds = (at.as_microsecond() + 999_999).div_euclid(1_000_000);
        store(lease, Timestamp::from_second(seconds).expect("in range"));
    }
}

fn cut_to_milliseconds(lease: &mut Value) {
    if let Some(at) = renewed(lease) {
        store(lease, Timestamp::from_millisecond(at.as_millisecond()).expect("in range"));
    }
}

fn with_its_own_time(lease: &mut Value) {
    store(lease, Timestamp::now());
}

fn without_any_time(lease: &mut Value) {
    if let Some(spec) = lease["spec"].as_object_mut() {
        spec.remove("renewTime");
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_webhook_cuts_renew_times_each_beat_is_one_and_looks_like_no_rival() {
    for webhook in
        [cut_to_seconds as Webhook, rounded_up_to_seconds, cut_to_milliseconds, with_its_own_time]
    {
        let api = Api::with(webhook);
        let diary = beats(&api, 20).await;
        assert_eq!(troubles(&diary), [""; 0]);
        let accepted = diary.iter().filter(|event| matches!(event, Event::Beat { .. })).count();
        // The first beat is reported as `Claimed`, and not as `Beat`.
        assert!(accepted < api.state().shown.len() + 1, "a beat has changed nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_webhook_removes_renew_times_the_heart_goes_on() {
    let api = Api::with(without_any_time);
    let (heartbeat_loop, diary) = heartbeat_loop(&api, BeatOptions::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(heartbeat_loop.run(stop.clone()));
    sleep(Duration::from_secs(20)).await;
    stop.cancel();
    running.await.expect("no panic").expect("deregistered");
    assert_eq!(troubles(&diary.lock().expect("no panic")), [""; 0]);
}

#[tokio::test]
async fn a_beat_by_hand_is_one_where_a_webhook_cuts_renew_times() {
    let api = Api::with(cut_to_seconds);
    let owner = Owner::Outside;
    let lease = identity().new_lease(&owner, 3, &HealthReport::default(), "a/1", Timestamp::now());
    let lease = serde_json::to_value(lease).expect("JSON");
    api.answer(&Method::POST, "/leases", None, lease);
    let one_shot = OneShot::new(api.connection(), identity());
    for beats in 2..6 {
        one_shot.heartbeat().await.expect("a beat");
        assert_eq!(api.state().shown.len(), beats);
    }
}

/// A client of the API server can write these values into any object.
fn strange(lease: &mut Value) {
    let nested = (0..200).fold(json!({}), |inner, _| json!({ "f:a": inner }));
    lease["metadata"]["managedFields"] =
        json!([{ "manager": "m", "time": "9999-12-31T23:59:59Z", "fieldsV1": nested }]);
    lease["metadata"]["creationTimestamp"] = json!("+10000-01-01T00:00:00Z");
    lease["spec"]["acquireTime"] = json!("9999-12-31T23:59:59.000000Z");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_no_type_can_hold_is_claimed_renewed_and_deleted() {
    let api = Api::with(strange);
    let diary = beats(&api, 10).await;
    assert_eq!(troubles(&diary), [""; 0]);
}

fn with_a_rival(lease: &mut Value) {
    lease["metadata"]["annotations"][beatkeeper_api::heartbeat::RIVAL_ANNOTATION] =
        json!(format!("vm-b\n\u{1b}[2J{}", "x".repeat(10_000)));
}

#[tokio::test(start_paused = true)]
async fn what_a_rival_says_of_itself_is_fit_to_be_printed() {
    let api = Api::with(with_a_rival);
    let diary = beats(&api, 10).await;
    let note = diary.iter().find_map(|event| match event {
        Event::Rival { note, .. } => Some(note.clone()),
        _ => None,
    });
    let note = note.expect("a rival");
    assert!(note.starts_with("vm-b\\n\\u{1b}[2Jxxx"), "{note}");
    assert!(note.chars().count() <= beatkeeper_api::heartbeat::NOTE_MAX, "{}", note.len());
}

/// Sets the health by hand, as `kubectl annotate` does, with the managed fields that the API server then has.
fn drained_by_hand(lease: &Value) -> Value {
    let mut lease = lease.clone();
    lease["metadata"]["annotations"][HEALTH_ANNOTATION] = json!("Draining");
    let health = format!("f:{HEALTH_ANNOTATION}");
    lease["metadata"]["managedFields"] = json!([
        { "manager": "test", "fieldsV1": { "f:spec": { "f:renewTime": {} } } },
        {
            "manager": "kubectl-annotate",
            "fieldsV1": { "f:metadata": { "f:annotations": { health: {} } } },
        },
    ]);
    lease
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_between_two_beats_stays_when_the_health_changes_in_the_same_interval() {
    let api = Api::with(|_| {});
    let (health, receiver) = watch::channel(HealthReport::default());
    let heartbeat_loop = HeartbeatLoop::new(
        api.connection(),
        identity(),
        BeatOptions::default(),
        receiver,
        Arc::new(|_| {}),
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn(heartbeat_loop.run(stop.clone()));
    sleep(Duration::from_secs(5)).await;
    let before = {
        let mut state = api.state();
        let drained = drained_by_hand(state.lease.as_ref().expect("a Lease"));
        state.store(drained);
        state.shown.len()
    };
    let note = Some("disk 91 %".to_owned());
    health.send_replace(HealthReport { health: Health::Failing, note, provisional: false });
    for round in 0..3 {
        sleep(Duration::from_millis(100)).await;
        let lease = api.state().lease.clone().expect("a Lease");
        let annotations = &lease["metadata"]["annotations"];
        assert_eq!(annotations[HEALTH_ANNOTATION], "Draining", "round {round}");
        assert_eq!(
            annotations[NOTE_ANNOTATION], "disk 91 %",
            "round {round}: what is ours goes out at once"
        );
        sleep(Duration::from_secs(2)).await;
    }
    assert!(api.state().shown.len() >= before + 5, "it beats on");
    stop.cancel();
    running.await.expect("no panic").expect("deregistered");
}
