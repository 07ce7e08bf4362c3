//! Sets the stage: gathers what is known, and establishes the Service.

use std::time::Duration;

use crate::controller::{
    context::Context,
    reconcile::ensure_service::{self, Ensured},
};
use beatkeeper_core::{
    gather::{self, Gathered},
    moment::Moment,
    reading::Unreadable,
    registration::Registration,
    service::ServiceView,
    stage::Stage,
    standing,
    temper::SERVICES,
};

/// A Service of another owner that is deleted is most often being replaced. The operator creates its own Service only
/// after this time.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(10);

/// Why the Service does not have the ports of the spec yet, if there is no error.
const TOO_OFTEN: &str =
    "spec.ports has changed too often in a row, and the last change is made within a second";

/// Gathers what is known and changes nothing. No client required.
pub(crate) fn as_known(registration: &Registration, context: &Context) -> Stage {
    let gathered = surroundings(registration, context);
    let known = gathered.service.clone();
    let stall = standing::stall(registration, known.as_deref(), &gathered.neighbours);
    Stage::new(gathered, known, stall)
}

/// Gathers what is known (no client required), and establishes the Service (client required) unless another
/// owner prevents it.
pub(crate) async fn set(registration: &Registration, context: &Context) -> Stage {
    let gathered = surroundings(registration, context);
    let known = gathered.service.clone();
    // This must run even if nothing is published because of the owner of the Service: it notes that owner.
    let being_replaced = being_replaced(registration, known.as_deref(), context);
    if let Some(stall) = standing::stall(registration, known.as_deref(), &gathered.neighbours) {
        return Stage::new(gathered, known, Some(stall));
    }
    if let Some(until) = being_replaced {
        let stall = standing::service_gone(registration);
        return Stage { look_again: Some(until), ..Stage::new(gathered, None, Some(stall)) };
    }
    if registration.dry_run {
        let ours = known.as_deref().is_some_and(|service| {
            let Registration { key, uid, .. } = registration;
            context.world().owns_service(service, &key.namespace, uid)
        });
        let (service, announced) = ensure_service::dry_run(registration, known, ours);
        let stall = standing::stall(registration, Some(&service), &gathered.neighbours);
        let announced = announced.into_iter().collect();
        return Stage { announced, ..Stage::new(gathered, Some(service), stall) };
    }
    if known.is_none()
        && let Err(until) = context.may(&registration.key, SERVICES, |paces| &mut paces.services)
    {
        // Another client deletes the Service again and again.
        let stall = standing::service_gone(registration);
        return Stage { look_again: Some(until), ..Stage::new(gathered, None, Some(stall)) };
    }
    match ensure_service::service(registration, known, context).await {
        Ok(Ensured::Unchanged(service)) => Stage::new(gathered, Some(service), None),
        Ok(Ensured::Waits(service)) => {
            let stall = standing::old_ports(registration, Some(&service), TOO_OFTEN);
            Stage::new(gathered, Some(service), stall)
        }
        Ok(Ensured::Written(service)) => {
            let gathered = surroundings(registration, context);
            let stall = standing::stall(registration, Some(&service), &gathered.neighbours);
            Stage::new(gathered, Some(service), stall)
        }
        Err(error) if error.is_namespace_ending() => Stage::new(gathered, None, None),
        Err(error) => {
            let service = gathered.service.clone();
            let stall = standing::old_ports(registration, service.as_deref(), &error.to_string());
            Stage { failure: Some(error.to_string()), ..Stage::new(gathered, service, stall) }
        }
    }
}

/// Gathers what is known around the registration. This includes one of its Pods that cannot be read, if there
/// is one.
fn surroundings(registration: &Registration, context: &Context) -> Gathered {
    let (mut gathered, pods) = {
        let world = context.world();
        let pods: Vec<_> = world.unreadable_pods(&registration.key.namespace).cloned().collect();
        (gather::surroundings(registration, &world), pods)
    };
    if !pods.is_empty() {
        let index = context.index();
        let has =
            |pod: &Unreadable| index.registrations_of_pod(&pod.key).contains(&registration.key);
        let pod = pods.into_iter().find(has);
        gathered.neighbours.unreadable = gathered.neighbours.unreadable.take().or(pod);
    }
    gathered
}

/// Until when to wait for another client to make a deleted Service anew; None if there is nothing to wait for.
fn being_replaced(
    registration: &Registration,
    known: Option<&ServiceView>,
    context: &Context,
) -> Option<Moment> {
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
