//! Detects that the store was rolled back to an earlier state, and restarts from the current state then.
//!
//! The parts of this process that see a sign of a rollback in a watch or a write report it here. They are the
//! probe ([`beatkeeper_core::liveness::rollback`]), a list ([`beatkeeper_core::cluster_cache`], [`beatkeeper_core::liveness::index`]), and a
//! read after a conflict. [`run`] asks the API server for rollbacks that none of them can see.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Resource;
use tokio::sync::watch;

use crate::controller::context::{Context, call};
use crate::kube_client::list::Collection;
use beatkeeper_core::{
    cluster_cache::{deliveries::PendingDelivery, watched::Watched},
    replica::{health::Concern, watch_stall::DeliveryCheck},
    vocabulary::version::Version,
};

/// How often the watches are checked for objects that they have not shown yet.
const TICK: Duration = Duration::from_secs(1);
/// One kind is asked for its current version every this many ticks. So each kind is asked for about twice a minute.
const ASK_EVERY: u32 = 8;

/// Restarts watches, with a new list.
#[derive(Debug, Default)]
pub(crate) struct Relists(Mutex<HashMap<&'static str, watch::Sender<u64>>>);

impl Relists {
    fn each(&self, kind: impl Fn(&str) -> bool) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = all.iter().filter(|(known, _)| kind(known));
        concerned.for_each(|(_, begin)| begin.send_modify(|times| *times += 1));
    }

    /// The events of a watch of this kind. The watch is made anew at each request.
    pub(crate) fn of<S>(
        &self,
        kind: &'static str,
        make: impl Fn() -> S + Send + 'static,
    ) -> impl Stream<Item = S::Item> + Send + 'static
    where
        S: Stream + Send + 'static,
        S::Item: Send,
    {
        let begin = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(kind).or_default().subscribe()
        };
        let events = make().boxed();
        stream::unfold((events, make, begin), |(mut events, make, mut begin)| async move {
            loop {
                tokio::select! {
                    biased;
                    // The channel closes when the context is dropped. Then no task reads the events.
                    Ok(()) = begin.changed() => events = make().boxed(),
                    event = events.next() => return Some((event?, (events, make, begin))),
                }
            }
        })
    }
}

/// Handles a rollback of the store: forgets everything that is compared by resourceVersion, and reads it anew.
/// Nothing is proven until this process has renewed its probe. Each instance that is not known to be dead gets
/// a full ttl from that moment on.
pub(crate) fn begin(context: &Context, why: &dyn Display) {
    if !context.observer.notices_rollbacks() {
        return;
    }
    tracing::warn!(
        %why,
        "the store has gone back to an earlier state, as after a backup was restored: everything is read anew, and \
         no instance is pruned for a ttl"
    );
    context.metrics.store_went_back();
    context.path().reset_after_rollback(format!("the store went back to an earlier state: {why}"));
    context.index().reset_after_rollback(context.clock.now());
    context.world().begin_anew();
    context.forget_versions();
    context.probe.begin_anew();
    context.relists.each(|_| true);
}

/// Takes in an object that was read after a refused write. `from` is the version that was known before.
pub(crate) fn take_in<K: Watched>(object: K, from: Version, context: &Context) {
    let mut world = context.world();
    world.put_read(object, from);
    let went_back = world.went_back::<K>();
    drop(world);
    if went_back {
        begin(context, &"a read shows an object at a lower version than was known");
    }
}

/// Checks the watches for ever. A watch that does not show known writes is restarted.
pub(crate) async fn run(context: std::sync::Arc<Context>, namespace: Option<String>) {
    let mut ears: HashMap<&'static str, DeliveryCheck> = HashMap::new();
    let mut last = context.clock.now();
    let mut told = false;
    for tick in 1_u32.. {
        tokio::time::sleep(TICK).await;
        let now = context.clock.now();
        // A process that was suspended received no events in that time.
        let passed = now.since(std::mem::replace(&mut last, now)).min(2 * TICK);
        let mut deaf = Ok(());
        for (kind, owed) in owed(&context) {
            if context.read_access.is_refused(kind) {
                // The refusal is reported already, and a restarted process would lack the right, too.
                ears.remove(kind);
                continue;
            }
            let ear = ears.entry(kind).or_default();
            if ear.check(owed, passed) && context.observer.notices_rollbacks() {
                tracing::warn!(kind, "the watch does not bring what was written: it is begun anew");
                context.metrics.watch_broke(kind);
                context.relists.each(|known| known == kind);
            }
            if let Some(silent) = ear.stalled_for() {
                let silent = silent.as_secs();
                deaf = Err(format!(
                    "the watch of {kind} has not brought for {silent} s what was written"
                ));
            }
        }
        // The health check appears with the first problem.
        told |= deaf.is_err();
        if told {
            context.health.lock().note("watches", Concern::Life, deaf);
        }
        let namespace = namespace.as_deref();
        match (tick % (4 * ASK_EVERY)) / ASK_EVERY {
            _ if tick % ASK_EVERY != 0 => {}
            0 => ask::<EndpointSlice>(&context, namespace).await,
            1 => ask::<Service>(&context, namespace).await,
            2 => ask::<Endpoints>(&context, namespace).await,
            _ => ask::<Pod>(&context, namespace).await,
        }
    }
}

/// What each watch is known to lack, as a number that changes once the watch has shown any of it.
fn owed(context: &Context) -> [(&'static str, Option<u64>); 4] {
    let probe = context.path().rollback_detector().unshown();
    let mut world = context.world();
    let number = |debt: Option<PendingDelivery>| debt.map(PendingDelivery::number);
    [
        ("Leases", probe.map(i64::cast_unsigned)),
        ("Services", number(world.debt::<Service>())),
        ("EndpointSlices", number(world.debt::<EndpointSlice>())),
        ("Endpoints", number(world.debt::<Endpoints>())),
    ]
}

/// Asks for the current version of a kind by the shortest possible list. A kind may have a store of its own
/// (`--etcd-servers-overrides`), which can be rolled back without the store of the Leases. If the operator has
/// nothing to write, no write of its own shows that a watch misses events.
async fn ask<K>(context: &Context, namespace: Option<&str>)
where
    K: Resource<DynamicType = ()> + Watched,
{
    let seen = context.world().shown::<K>();
    let all = Collection::of::<K>(&context.client, namespace);
    let kind = K::plural(&());
    let asked = call(|| format!("ask for the version of {kind}"), all.version()).await;
    // If the call fails, a later round asks again.
    let Ok(reached) = asked else { return };
    let reached = Version::of(reached.as_deref());
    if reached < seen && context.world().shown::<K>() == seen {
        let (reached, seen) = (reached.0, seen.0);
        begin(context, &format!("{kind} are at version {reached}, after {seen} was seen"));
    }
}
