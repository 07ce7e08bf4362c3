//! The adopt step: takes over endpoints that people have written by hand for the Service, if the registration
//! has the annotation for it.
//!
//! The takeover causes no gap, and a crash after any write loses no instance. It has four steps:
//!
//! 1. The adopted instances are written to the status.
//! 2. The slices get the operator's mark. So the operator owns them as they are.
//! 3. The plan completes the operator's slices.
//! 4. When the slices hold all wanted addresses, the Endpoints object gets the operator's marks. This ends its
//!    mirrored slices.
//!
//! Each run does the steps that are left.

use std::time::Duration;

use beatkeeper_api::{AdoptedInstance, ServiceRegistration};
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use crate::controller::{
    context::{Context, call, call_write},
    error::ApiError,
    reconcile::apply::Outcome,
};
use crate::kube_client::list::Collection;
use beatkeeper_core::{
    adoption::{
        adopted::{Adopted, Adoption},
        plan::{self, AdoptionPlan},
        scene::{AdoptionInputs, ForeignObjects},
        verdicts,
    },
    cluster_cache::Ownership,
    decide::verdict::Verdict,
    inputs::{
        Inputs, preconditions, snapshot,
        stall::{ConflictingObjects, Stall},
    },
    objects::{
        decode::{Lenient, Unreadable},
        marks::SERVICE_NAME_LABEL,
        registration::Registration,
        service::ServiceView,
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// The objects are read again this long after a refusal, since the watches do not keep the contents of objects
/// that the operator does not own.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// After the selector of a Service was removed, writes that the cluster's own controllers had under way arrive
/// within this time.
const SELECTOR_GRACE: Duration = Duration::from_secs(2);
/// How often at most the adopted instances are written, when other writes of the status cause conflicts.
const ATTEMPTS: usize = 5;

/// Adds the adopted instances to the stage, and begins to take over what may be taken over (client required).
/// `judge` decides about the instances that have Leases.
pub(crate) async fn begin(
    mut stage: Inputs,
    object: &ServiceRegistration,
    registration: &Registration,
    judge: impl Fn(&Inputs) -> Vec<Verdict>,
    context: &Context,
) -> Inputs {
    let adopted = remembered(object, registration, context);
    stage.adoption = sort_out(&adopted, registration, context);
    let ConflictingObjects { foreign_slice, foreign_endpoints, left_by_cluster, elder, unreadable } =
        &stage.snapshot.conflicts;
    if unreadable.is_some() {
        return stage;
    }
    if let Some(pod) = unread_pod(&adopted, registration, context) {
        // A Pod that cannot be read may still exist.
        stage.stall = Some(Stall::unreadable(&pod));
        stage.snapshot.conflicts.unreadable = Some(pod);
        return stage;
    }
    let left_by_cluster = *left_by_cluster;
    let cleared = ConflictingObjects { elder: elder.clone(), ..ConflictingObjects::default() };
    let in_the_way = foreign_slice.is_some() || *foreign_endpoints;
    let service = stage.service.clone();
    let selector_grace = selector_grace(registration, service.as_deref(), context);
    let may_be_taken = registration.consent.is_given() || left_by_cluster;
    if !may_be_taken || !in_the_way || service.is_none() {
        return stage;
    }
    // There may be another reason for a stall, besides the objects to be taken over.
    let otherwise = preconditions::stall(registration, service.as_deref(), &cleared);
    if otherwise.is_some() {
        stage.stall = otherwise;
        return stage;
    }
    if let Some(until) = selector_grace.filter(|_| left_by_cluster) {
        let stall = Some(Stall::letting_go(registration));
        return Inputs { stall, requeue_at: Some(until), ..stage };
    }
    let foreign = match read(registration, context).await {
        Ok(foreign) => foreign,
        Err(error) => return failed(stage, &error),
    };
    let verdicts = judge(&stage);
    let plan = plan::plan(
        &AdoptionInputs {
            registration,
            families: stage.families(),
            ports: &preconditions::common_ports(registration, service.as_deref()),
            ranges: &context.settings.outside_ranges,
            owner_of: &|address| context.world().owner_of_address(address),
            left_by_cluster,
            pod: &|name| context.world().pod(&Key::new(&registration.key.namespace, name)),
            is_unread: &|name| {
                let key = Key::new(&registration.key.namespace, name);
                context.world().unreadable_pod(&key).is_some()
            },
            adopted: &adopted,
            verdicts: &verdicts,
            wall: context.clock.clocks().wall,
        },
        &foreign,
    );
    let takeover = match plan {
        Ok(takeover) => takeover,
        Err(refusal) => {
            stage.stall = Some(Stall::adoption_refused(&refusal));
            stage.requeue_at = Some(context.clock.now() + LOOK_AGAIN);
            return stage;
        }
    };
    if registration.dry_run {
        return dry_run(stage, takeover);
    }
    if let Err(error) = take(registration, &stage.adoption.ended, &takeover, context).await {
        return failed(stage, &error);
    }
    stage.snapshot = snapshot::take(registration, &context.world());
    stage.adoption.instances.extend(takeover.newcomers);
    stage.adoption.endpoints = takeover.endpoints;
    stage.adoption.leftovers = takeover.leftovers;
    stage.stall = None;
    stage
}

/// Returns a Pod of an adopted instance that cannot be read, if there is one.
fn unread_pod(
    adopted: &[Adopted],
    registration: &Registration,
    context: &Context,
) -> Option<Unreadable> {
    let world = context.world();
    let pods = adopted.iter().filter_map(|adopted| adopted.pod());
    let keys = pods.map(|(name, _)| Key::new(&registration.key.namespace, name));
    keys.into_iter().find_map(|key| world.unreadable_pod(&key).cloned())
}

/// Until when the cluster's own controllers may still write what they decided while the Service had a selector.
/// Returns None after that time, and while the Service has a selector.
fn selector_grace(
    registration: &Registration,
    service: Option<&ServiceView>,
    context: &Context,
) -> Option<MonotonicTime> {
    let now = context.clock.now();
    let service = service?;
    context.remember(&registration.key, &registration.uid, |memory| {
        if service.selects {
            memory.without_selector = None;
            return None;
        }
        let (uid, since) = memory.without_selector.get_or_insert((service.uid.clone(), now));
        if *uid != service.uid {
            (*uid, *since) = (service.uid.clone(), now);
        }
        let until = *since + SELECTOR_GRACE;
        (now < until).then_some(until)
    })
}

/// If a read or a write fails, everything stays as it is, and the takeover is retried.
fn failed(stage: Inputs, error: &ApiError) -> Inputs {
    let stall = Stall::adoption_unfinished(&error.to_string());
    Inputs { failure: Some(error.to_string()), stall: Some(stall), ..stage }
}

fn dry_run(mut stage: Inputs, takeover: AdoptionPlan) -> Inputs {
    let AdoptionPlan { newcomers, slices, leftovers, endpoints } = takeover;
    let slices_told = slices.iter().map(|slice| format!("take over slice {}", slice.name_any()));
    let endpoints_told =
        endpoints.iter().map(|object| format!("take over endpoints {}", object.name_any()));
    let leftovers_told =
        leftovers.iter().map(|slice| format!("take the place of slice {}", slice.name_any()));
    stage.announced.extend(slices_told.chain(endpoints_told).chain(leftovers_told));
    stage.adoption.instances.extend(newcomers);
    stage.snapshot.slices.extend(slices.into_iter().map(Into::into));
    stage.stall = None;
    stage
}

/// The adopted instances from the newest known source: the watch, or the last write of this process.
fn remembered(
    object: &ServiceRegistration,
    registration: &Registration,
    context: &Context,
) -> Vec<Adopted> {
    let seen = Version::of(object.metadata.resource_version.as_deref());
    let status = object.status.iter().flat_map(|status| &status.adopted);
    context.remember(&registration.key, &registration.uid, |memory| match &memory.adopted {
        Some((written, adopted)) if *written > seen => {
            adopted.iter().filter_map(Adopted::read).collect()
        }
        _ => status.filter_map(Adopted::read).collect(),
    })
}

/// Selects the adopted instances that stay. An instance that has beaten since does not stay, nor does one
/// without the consent. In a dry run no instance is removed for lack of consent, since the consent may be given
/// again before the dry run ends.
fn sort_out(adopted: &[Adopted], registration: &Registration, context: &Context) -> Adoption {
    if adopted.is_empty() {
        return Adoption::default();
    }
    let weaned = context.remember(&registration.key, &registration.uid, |memory| {
        memory.weaned.retain(|entry| adopted.iter().any(|it| it.entry == *entry));
        memory.weaned.clone()
    });
    let (instances, withdrawn): (Vec<_>, Vec<_>) = adopted
        .iter()
        .filter(|it| !weaned.contains(&it.entry))
        .cloned()
        .partition(|it| it.stays(&registration.consent));
    if registration.dry_run {
        return Adoption { instances, ..Adoption::default() };
    }
    let ended = withdrawn.into_iter().map(|it| it.entry).chain(weaned).collect();
    Adoption { instances, ended, ..Adoption::default() }
}

/// Remembers the adopted instances that have beaten. Returns the entries to be removed from the status.
pub(crate) fn ended(
    registration: &Registration,
    stage: &Inputs,
    verdicts: &[Verdict],
    context: &Context,
) -> Vec<AdoptedInstance> {
    let weaned = verdicts::weaned(&stage.adoption.instances, verdicts);
    let mut ended = stage.adoption.ended.clone();
    if !weaned.is_empty() && !registration.dry_run {
        ended.extend(weaned.iter().cloned());
        context.remember(&registration.key, &registration.uid, |memory| {
            memory.weaned.extend(weaned);
        });
    }
    ended
}

/// Reads the Endpoints and slices of the Service that the operator does not own.
async fn read(registration: &Registration, context: &Context) -> Result<ForeignObjects, ApiError> {
    let namespace = &registration.key.namespace;
    let service = &registration.service_name;
    let endpoints = Api::<Lenient<Endpoints>>::namespaced(context.client.clone(), namespace);
    let endpoints =
        call(|| format!("read Endpoints {namespace}/{service}"), endpoints.get_opt(service));
    let endpoints = endpoints.await?.map(|Lenient(object)| object);
    let of_service = Collection::of::<EndpointSlice>(&context.client, Some(namespace))
        .labelled(&format!("{SERVICE_NAME_LABEL}={service}"));
    let mut slices: Vec<EndpointSlice> = Vec::new();
    // An unreadable slice stalls the registration before this call.
    let listed = of_service.each::<EndpointSlice>(|slice| slices.extend(slice));
    call(|| format!("list the EndpointSlices of Service {namespace}/{service}"), listed).await?;
    let world = context.world();
    let foreign = |metadata: &_| world.ownership(metadata, &registration.uid) == Ownership::Foreign;
    Ok(ForeignObjects {
        has_endpoints: endpoints.is_some(),
        endpoints: endpoints.filter(|object| foreign(&object.metadata)),
        slices: slices.into_iter().filter(|slice| foreign(&slice.metadata)).collect(),
    })
}

/// Writes the newcomers to the status, and then marks the slices as the operator's.
async fn take(
    registration: &Registration,
    ended: &[AdoptedInstance],
    takeover: &AdoptionPlan,
    context: &Context,
) -> Result<(), ApiError> {
    if !takeover.newcomers.is_empty() {
        write_down(registration, ended, &takeover.newcomers, context).await?;
    }
    let namespace = &registration.key.namespace;
    let api = Api::<Lenient<EndpointSlice>>::namespaced(context.client.clone(), namespace);
    for slice in &takeover.slices {
        let name = slice.name_any();
        let doing = || format!("take over EndpointSlice {namespace}/{name}");
        let (ours, params) = (Lenient(slice.clone()), PostParams::default());
        let Lenient(ours) = call_write(context, doing, api.replace(&name, &params, &ours)).await?;
        tracing::info!(registration = %registration.key, slice = name, "took over a slice");
        context.world().put_own(ours);
    }
    Ok(())
}

/// Adds newcomers to the adopted instances in the status. No other code adds entries. It changes the current
/// status, on the condition that the object does not change before the write, since reports are written at the
/// same time.
async fn write_down(
    registration: &Registration,
    ended: &[AdoptedInstance],
    newcomers: &[Adopted],
    context: &Context,
) -> Result<(), ApiError> {
    let key = &registration.key;
    let api =
        Api::<Lenient<ServiceRegistration>>::namespaced(context.client.clone(), &key.namespace);
    for attempt in 1.. {
        let doing = || format!("read ServiceRegistration {key}");
        let Lenient(current) = call(doing, api.get_status(&key.name)).await?;
        let mut adopted = current.status.map(|status| status.adopted).unwrap_or_default();
        adopted.retain(|entry| !ended.contains(entry));
        for Adopted { entry, .. } in newcomers {
            if adopted.iter().all(|known| known.name != entry.name) {
                adopted.push(entry.clone());
            }
        }
        let version = current.metadata.resource_version;
        let patch = Patch::Merge(json!({
            "metadata": { "uid": registration.uid, "resourceVersion": version },
            "status": { "adopted": adopted },
        }));
        let doing = || format!("record the instances that ServiceRegistration {key} adopts");
        let params = PatchParams::default();
        match call_write(context, doing, api.patch_status(&key.name, &params, &patch)).await {
            Ok(Lenient(written)) => {
                let version = Version::of(written.metadata.resource_version.as_deref());
                context.remember(key, &registration.uid, |memory| {
                    memory.adopted = Some((version, adopted));
                });
                return Ok(());
            }
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Completes the takeover once the operator's slices hold all wanted addresses (client required). It deletes
/// the slices that the cluster's own controller has left and marks the Endpoints object as the operator's, each
/// on the condition that the object is still as it was read. Then everything is planned anew.
pub(crate) async fn finish(
    outcome: Outcome,
    registration: &Registration,
    stage: &Inputs,
    verdicts: &[Verdict],
    context: &Context,
) -> Outcome {
    let Adoption { leftovers, endpoints, .. } = &stage.adoption;
    let Outcome::Done(applied) = &outcome else { return outcome };
    if applied.failure.is_some() || (leftovers.is_empty() && endpoints.is_none()) {
        return outcome;
    }
    if !stage.adoption.is_complete(verdicts, &snapshot::published(registration, &context.world())) {
        let later = context.clock.now() + LOOK_AGAIN;
        context.remember(&registration.key, &registration.uid, |memory| {
            memory.requeue_at = Some(later);
        });
        return outcome;
    }
    let finished = async {
        for slice in leftovers {
            delete_leftover(registration, slice, context).await?;
        }
        match endpoints {
            Some(endpoints) => take_endpoints(registration, endpoints, context).await,
            None => Ok(()),
        }
    };
    match finished.await {
        Ok(()) => Outcome::Conflict("the last of it has just been taken over".to_owned()),
        Err(error) if error.is_conflict() => Outcome::Conflict(error.to_string()),
        Err(error) => {
            let mut applied = applied.clone();
            applied.failure = Some(error.to_string());
            Outcome::Done(applied)
        }
    }
}

async fn delete_leftover(
    registration: &Registration,
    slice: &EndpointSlice,
    context: &Context,
) -> Result<(), ApiError> {
    let (namespace, name) = (&registration.key.namespace, slice.name_any());
    let exactly = DeleteParams::default().preconditions(Preconditions {
        uid: slice.uid(),
        resource_version: slice.resource_version(),
    });
    let api = Collection::of::<EndpointSlice>(&context.client, Some(namespace));
    let doing = || format!("delete EndpointSlice {namespace}/{name}, which ours replace");
    match call_write(context, doing, api.delete(&name, &exactly)).await {
        Err(error) if !error.is_absent() => return Err(error),
        _ => {}
    }
    tracing::info!(registration = %registration.key, slice = name, "took the place of a slice");
    let version = Version::of(slice.metadata.resource_version.as_deref());
    context.world().remove_own::<EndpointSlice>(&Key::new(namespace, name), version);
    Ok(())
}

async fn take_endpoints(
    registration: &Registration,
    endpoints: &Endpoints,
    context: &Context,
) -> Result<(), ApiError> {
    let namespace = &registration.key.namespace;
    let api = Api::<Lenient<Endpoints>>::namespaced(context.client.clone(), namespace);
    let name = endpoints.name_any();
    let doing = || format!("take over Endpoints {namespace}/{name}");
    let (ours, params) = (Lenient(endpoints.clone()), PostParams::default());
    let Lenient(ours) = call_write(context, doing, api.replace(&name, &params, &ours)).await?;
    tracing::info!(registration = %registration.key, "took over the Endpoints");
    context.world().put_own(ours);
    Ok(())
}
