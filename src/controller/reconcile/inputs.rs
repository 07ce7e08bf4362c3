//! Sets the stage: gathers what is known, and establishes the Service.

use std::time::Duration;

use crate::controller::{
    context::Context,
    reconcile::ensure_service::{self, Ensured},
};
use beatkeeper_core::{
    inputs::{
        Inputs, preconditions,
        snapshot::{self, Snapshot},
    },
    objects::{decode::Unreadable, registration::Registration, service::ServiceView},
    plan::change_limits::SERVICES,
    vocabulary::monotonic_time::MonotonicTime,
};

/// A Service of another owner that is deleted is most often being replaced. The operator creates its own Service only
/// after this time.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(10);

/// Why the Service does not have the ports of the spec yet, if there is no error.
const TOO_OFTEN: &str =
    "spec.ports has changed too often in a row, and the last change is made within a second";

/// Gathers what is known and changes nothing. No client required.
pub(crate) fn as_known(registration: &Registration, context: &Context) -> Inputs {
    let snapshot = take(registration, context);
    let known = snapshot.service.clone();
    let stall = preconditions::stall(registration, known.as_deref(), &snapshot.conflicts);
    Inputs::new(snapshot, known, stall)
}

/// Gathers what is known (no client required), and establishes the Service (client required) unless another
/// owner prevents it.
pub(crate) async fn set(registration: &Registration, context: &Context) -> Inputs {
    let snapshot = take(registration, context);
    let known = snapshot.service.clone();
    // This must run even if nothing is published because of the owner of the Service: it notes that owner.
    let being_replaced = being_replaced(registration, known.as_deref(), context);
    if let Some(stall) = preconditions::stall(registration, known.as_deref(), &snapshot.conflicts) {
        return Inputs::new(snapshot, known, Some(stall));
    }
    if let Some(until) = being_replaced {
        let stall = preconditions::service_gone(registration);
        return Inputs { requeue_at: Some(until), ..Inputs::new(snapshot, None, Some(stall)) };
    }
    if registration.dry_run {
        let ours = known.as_deref().is_some_and(|service| {
            let Registration { key, uid, .. } = registration;
            context.world().owns_service(service, &key.namespace, uid)
        });
        let (service, announced) = ensure_service::dry_run(registration, known, ours);
        let stall = preconditions::stall(registration, Some(&service), &snapshot.conflicts);
        let announced = announced.into_iter().collect();
        return Inputs { announced, ..Inputs::new(snapshot, Some(service), stall) };
    }
    if known.is_none()
        && let Err(until) = context.may(&registration.key, SERVICES, |paces| &mut paces.services)
    {
        // Another client deletes the Service again and again.
        let stall = preconditions::service_gone(registration);
        return Inputs { requeue_at: Some(until), ..Inputs::new(snapshot, None, Some(stall)) };
    }
    match ensure_service::service(registration, known, context).await {
        Ok(Ensured::Unchanged(service)) => Inputs::new(snapshot, Some(service), None),
        Ok(Ensured::Waits(service)) => {
            let stall = preconditions::old_ports(registration, Some(&service), TOO_OFTEN);
            Inputs::new(snapshot, Some(service), stall)
        }
        Ok(Ensured::Written(service)) => {
            let snapshot = take(registration, context);
            let stall = preconditions::stall(registration, Some(&service), &snapshot.conflicts);
            Inputs::new(snapshot, Some(service), stall)
        }
        Err(error) if error.is_namespace_ending() => Inputs::new(snapshot, None, None),
        Err(error) => {
            let service = snapshot.service.clone();
            let stall =
                preconditions::old_ports(registration, service.as_deref(), &error.to_string());
            Inputs { failure: Some(error.to_string()), ..Inputs::new(snapshot, service, stall) }
        }
    }
}

/// Gathers what is known around the registration. This includes one of its Pods that cannot be read, if there
/// is one.
fn take(registration: &Registration, context: &Context) -> Snapshot {
    let (mut snapshot, pods) = {
        let world = context.world();
        let pods: Vec<_> = world.unreadable_pods(&registration.key.namespace).cloned().collect();
        (snapshot::take(registration, &world), pods)
    };
    if !pods.is_empty() {
        let index = context.index();
        let has =
            |pod: &Unreadable| index.registrations_of_pod(&pod.key).contains(&registration.key);
        let pod = pods.into_iter().find(has);
        snapshot.conflicts.unreadable = snapshot.conflicts.unreadable.take().or(pod);
    }
    snapshot
}

/// Until when to wait for another client to make a deleted Service anew; None if there is nothing to wait for.
fn being_replaced(
    registration: &Registration,
    known: Option<&ServiceView>,
    context: &Context,
) -> Option<MonotonicTime> {
    let now = context.clock.now();
    context.remember(&registration.key, &registration.uid, |memory| {
        if let Some(service) = known {
            memory.foreign_service = service.owner.is_none();
            memory.service_gone = None;
        }
        if known.is_some() || !memory.foreign_service {
            return None;
        }
        let until = *memory.service_gone.get_or_insert(now) + REPLACEMENT_GRACE;
        (now < until).then_some(until)
    })
}
