//! Reports the kinds that the API server does not let the operator read: in the log, in the metrics, and in the
//! conditions of the registrations concerned.

use std::{collections::HashMap, sync::Arc, time::Duration};

use beatkeeper_api::{ServiceRegistration, ServiceRegistrationStatus, status::condition};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{
        reflector::Store,
        watcher::{self, Event},
    },
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::controller::{
    context::{Context, call_write},
    error::ApiError,
    report::status_writer::Written,
    watch::objects::cache,
};
use beatkeeper_core::{
    objects::decode::Lenient,
    replica::access::{Access, CANNOT_READ, Need, Refusal},
    vocabulary::{key::Key, reason::Reason, version::Version},
};

/// A refusal that lasts this long is reported, and registrations that do not report it yet are looked for as often.
/// A shorter refusal is ignored: an API server that starts may refuse what it grants a moment later. After this time a
/// replica that may not read a scope takes part in the election: the other replicas may lack the right too, and one
/// must report it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the watches of a scope have found out about the right to read.
#[derive(Debug, Default)]
pub(crate) struct ReadAccess(watch::Sender<Access>);

impl ReadAccess {
    /// Notes that a watch of this kind begins.
    pub(crate) fn expect(&self, kind: &'static str) {
        let need = if kind == "Nodes" { Need::Helpful } else { Need::Necessary };
        self.0.send_modify(|access| access.expect(kind, need));
    }

    /// Takes in an event of a watch. Returns whether the event is a refusal.
    pub(crate) fn take<K>(&self, kind: &'static str, event: &watcher::Result<Event<K>>) -> bool {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => false,
            Ok(_) => {
                self.0.send_if_modified(|access| access.read(kind));
                false
            }
            Err(error) => {
                let Some(words) = refusal(error) else { return false };
                self.0.send_if_modified(|access| access.refused(kind, words));
                true
            }
        }
    }

    /// Whether a necessary kind cannot be read, so that nothing can be decided.
    pub(crate) fn is_wanting(&self) -> bool {
        self.0.borrow().is_wanting()
    }

    /// Whether a kind is refused.
    pub(crate) fn is_refused(&self, kind: &str) -> bool {
        self.0.borrow().is_refused(kind)
    }

    /// Waits until this kind is refused and decisions do not need it. Never returns for a kind that they need.
    pub(crate) async fn not_needed(&self, kind: &str) {
        // This fails only after the sender is dropped, and `self` holds the sender.
        let _ = self.0.subscribe().wait_for(|access| access.is_dispensed_with(kind)).await;
    }
}

/// The events of a watch that is begun anew, with a list, after a refusal. A watch that only resumed would
/// report nothing when it is allowed again, for as long as no object changes.
pub(crate) fn relist_after_refusal<K, S>(
    make: impl Fn() -> S + Send + 'static,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Send + 'static,
    S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    stream::unfold((make().boxed(), make), |(mut events, make)| async move {
        let event = events.next().await?;
        match &event {
            // The watcher lists anew by itself.
            Err(watcher::Error::InitialListFailed(_)) | Ok(_) => {}
            Err(error) if refusal(error).is_some() => events = make().boxed(),
            Err(_) => {}
        }
        Some((event, (events, make)))
    })
}

/// The message of the API server if it refuses a read with 403.
fn refusal(error: &watcher::Error) -> Option<&str> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return None,
    };
    (status.code == 403).then_some(status.message.as_str())
}

/// Runs for ever. Reports what is refused in a scope, and wakes its registrations when the refusal is over.
pub(crate) async fn run(
    namespace: Option<String>,
    context: Arc<Context>,
    reader: Store<ServiceRegistration>,
    warm: CancellationToken,
) {
    let scope = namespace.as_deref().unwrap_or("all namespaces").to_owned();
    let mut read_access = context.read_access.0.subscribe();
    let mut told: Option<Refusal> = None;
    let mut conditions = Conditions::because(CANNOT_READ);
    let mut woken_after = 0;
    let mut due: Option<Instant> = None;
    loop {
        let access = read_access.borrow_and_update().clone();
        note(namespace.as_deref(), &access, &context);
        if !access.is_wanting() && access.times_wanting() != woken_after {
            woken_after = access.times_wanting();
            context.wake(reader.state().iter().map(|object| Key::of(&object.metadata)));
        }
        let refusal = access.told(namespace.as_deref());
        if refusal.is_none() && told.take().is_some() {
            conditions.said.clear();
            tracing::info!(scope, "the operator may read everything now");
        }
        due = refusal.as_ref().map(|_| due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN));
        tokio::select! {
            biased;
            Ok(()) = read_access.changed() => continue,
            () = reached(due) => due = None,
        }
        let Some(refusal) = refusal else { continue };
        if refusal.adds_to(told.as_ref()) {
            tracing::warn!(scope, "{refusal}");
        }
        if refusal.is_wanting() {
            warm.cancel();
            let why = refusal.to_string();
            conditions.set(&why, &why, &reader, &context).await;
        }
        told = Some(refusal);
    }
}

/// Waits for an instant. Never returns without one.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Notes the refused kinds in the health and in the metrics. A refusal does not make the process unready, since
/// waiting would not fix it.
fn note(namespace: Option<&str>, access: &Access, context: &Context) {
    let mut health = context.health.lock();
    access.answered_kinds().for_each(|kind| health.cache_answered(&cache(kind, namespace)));
    drop(health);
    let refused: Vec<&'static str> = access.refused_kinds().collect();
    context.metrics.unreadable(namespace.unwrap_or_default(), &refused);
}

/// For as long as no proof has come, writes to the registrations that nothing is published before. A missing
/// right may be the reason.
pub(crate) async fn report_unproven(context: &Context, reader: &Store<ServiceRegistration>) {
    let reason = Reason::PathUnproven.as_str();
    let mut conditions = Conditions::because(reason);
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let doubt = context.path().failure().map(str::to_owned);
        if let Some(doubt) = doubt {
            let why = format!(
                "nothing is published or pruned before the operator's probe is back: {doubt}"
            );
            conditions.set(reason, &why, reader, context).await;
        }
    }
}

/// The registrations that report why nothing is decided about them, and what they report.
struct Conditions {
    reason: &'static str,
    /// The uid and the reported text, by registration.
    said: HashMap<Key, (String, String)>,
}

impl Conditions {
    fn because(reason: &'static str) -> Self {
        Self { reason, said: HashMap::new() }
    }

    /// Writes `why` to each registration that does not report `what` yet. A failed write is retried.
    async fn set(
        &mut self,
        what: &str,
        why: &str,
        reader: &Store<ServiceRegistration>,
        context: &Context,
    ) {
        for object in reader.state() {
            if !context.leadership.holds() {
                // The next leader reports it again.
                self.said.clear();
                return;
            }
            let key = Key::of(&object.metadata);
            let said = (object.metadata.uid.clone().unwrap_or_default(), what.to_owned());
            if self.said.get(&key) == Some(&said) {
                continue;
            }
            if let Err(error) = set(&key, &object, self.reason, why, context).await {
                // The writes of the others would most likely fail as well.
                tracing::debug!(%error, "the registrations cannot say why nothing is decided");
                return;
            }
            self.said.insert(key, said);
        }
    }
}

async fn set(
    key: &Key,
    object: &ServiceRegistration,
    reason: &str,
    why: &str,
    context: &Context,
) -> Result<(), ApiError> {
    let nothing = ServiceRegistrationStatus::default();
    let prior = object.status.as_ref().unwrap_or(&nothing);
    let wall = context.clock.clocks().wall;
    let next = conditions(prior, object.metadata.generation, reason, why, wall);
    if next == prior.conditions {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "status": { "conditions": next } }));
    let params = PatchParams::default();
    let Some(_turn) = context.background_permit().await else { return Ok(()) };
    let api =
        Api::<Lenient<ServiceRegistration>>::namespaced(context.client.clone(), &key.namespace);
    let doing = || format!("write the conditions of ServiceRegistration {key}");
    let call = api.patch_status(&key.name, &params, &patch);
    match call_write(context, doing, call).await {
        Ok(Lenient(written)) => {
            // A report that follows at once is compared with this status, and not with the last one that the
            // watch has shown.
            let version = Version::of(written.metadata.resource_version.as_deref());
            let status = written.status.unwrap_or_default();
            let uid = written.metadata.uid.unwrap_or_default();
            if context.world().has_registration(key) {
                let written = Written { version, status, at: context.clock.now() };
                context.desks().note_condition(key, &uid, written);
            }
            Ok(())
        }
        Err(error) if error.is_absent() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The conditions of a registration about which nothing is decided. The published endpoints stay, and so does
/// the condition about availability.
fn conditions(
    prior: &ServiceRegistrationStatus,
    generation: Option<i64>,
    reason: &str,
    why: &str,
    wall: Timestamp,
) -> Vec<Condition> {
    let mut conditions = prior.conditions.clone();
    conditions.retain(|it| it.type_ == condition::AVAILABLE);
    let wall = Timestamp::from_second(wall.as_second()).unwrap_or(wall);
    for (type_, status) in [
        (condition::READY, "False"),
        (condition::PRUNING_HELD, "True"),
        (condition::STALLED, "True"),
    ] {
        let before = prior.conditions.iter().find(|it| it.type_ == type_ && it.status == status);
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: why.to_owned(),
            observed_generation: generation,
            last_transition_time: before
                .map_or(Time(wall), |before| before.last_transition_time.clone()),
        });
    }
    conditions
}
