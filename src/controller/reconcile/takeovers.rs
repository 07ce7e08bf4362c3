//! The objects that others have left for a Service: reads them and takes them over.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{AdoptedInstance, ServiceRegistration};
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::{error::TakeoverError, fence::Fence, subject::Subject};
use crate::{
    controller::{api::ApiServer, clock::Clock, cluster::Cluster, error::ApiError, states::States},
    kube_client::list::Collection,
};
use beatkeeper_core::objects::marks::SERVICE_NAME_LABEL;
use beatkeeper_core::{
    adoption::{
        adopted::{Adopted, Adoption},
        plan::{self, AdoptionPlan},
        scene::ForeignObjects,
    },
    cluster_cache::Ownership,
    decide::verdict::Verdict,
    inputs::{Inputs, snapshot},
    objects::{
        decode::Lenient, published_addresses::PublishedAddresses, registration::Registration,
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// The objects are read again this long after a refusal, since the watches do not keep the contents of objects
/// that the operator does not own.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often at most the adopted instances are written, when other writes of the status cause conflicts.
const ATTEMPTS: usize = 5;

/// How far the takeover of a registration has come.
pub(crate) enum Completion {
    /// Nothing is left to be taken over.
    NothingLeft,
    /// The operator's slices do not hold all wanted addresses yet. This is to be checked again at this moment.
    NotBefore(MonotonicTime),
    /// The last of it has just been taken over. Everything is to be planned again.
    TakenOver,
}

/// Reads and writes what others have left.
#[derive(Clone)]
pub(crate) struct Takeovers {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) states: Arc<States>,
}

impl Takeovers {
    /// Reads the Endpoints and slices of the Service that the operator does not own.
    pub(crate) async fn read(
        &self,
        registration: &Registration,
    ) -> Result<ForeignObjects, ApiError> {
        let namespace = &registration.key.namespace;
        let service = &registration.service_name;
        let endpoints = Api::<Lenient<Endpoints>>::namespaced(self.api.client.clone(), namespace);
        let endpoints = self
            .api
            .read(|| format!("read Endpoints {namespace}/{service}"), endpoints.get_opt(service));
        let endpoints = endpoints.await?.map(|Lenient(object)| object);
        let slices = self.list_slices(registration).await?;
        let cluster = self.cluster.lock();
        let foreign =
            |metadata: &_| cluster.ownership(metadata, &registration.uid) == Ownership::Foreign;
        Ok(ForeignObjects {
            has_endpoints: endpoints.is_some(),
            endpoints: endpoints.filter(|object| foreign(&object.metadata)),
            slices: slices.into_iter().filter(|slice| foreign(&slice.metadata)).collect(),
        })
    }

    /// Reads all slices of the Service.
    async fn list_slices(
        &self,
        registration: &Registration,
    ) -> Result<Vec<EndpointSlice>, ApiError> {
        let namespace = &registration.key.namespace;
        let service = &registration.service_name;
        let of_service = Collection::of::<EndpointSlice>(&self.api.client, Some(namespace))
            .labelled(&format!("{SERVICE_NAME_LABEL}={service}"));
        let mut slices: Vec<EndpointSlice> = Vec::new();
        // An unreadable slice stalls the registration before this call.
        let listed = of_service.each::<EndpointSlice>(|slice| slices.extend(slice));
        self.api
            .read(|| format!("list the EndpointSlices of Service {namespace}/{service}"), listed)
            .await?;
        Ok(slices)
    }

    /// Writes the newcomers to the status, and then marks the slices as the operator's.
    ///
    /// # Errors
    /// [`TakeoverError`] if a call fails, or if the status no longer lists the adopted instances.
    pub(crate) async fn take(
        &self,
        registration: &Registration,
        adoption: &Adoption,
        takeover: &AdoptionPlan,
    ) -> Result<(), TakeoverError> {
        if !takeover.newcomers.is_empty() {
            self.write_down(registration, &adoption.ended, &takeover.newcomers).await?;
        }
        let mut slices = takeover.slices.clone();
        let fence = self.fence();
        for slice in &mut slices {
            fence.put_up(slice).await?;
        }
        let recorded = [&adoption.instances[..], &takeover.newcomers[..]].concat();
        fence.require_recorded(registration, &recorded).await?;
        let namespace = &registration.key.namespace;
        let api = Api::<Lenient<EndpointSlice>>::namespaced(self.api.client.clone(), namespace);
        for mut slice in slices {
            plan::mark_slice(&registration.owner(), &mut slice);
            let name = slice.name_any();
            let doing = || format!("take over EndpointSlice {namespace}/{name}");
            let (ours, params) = (Lenient(slice), PostParams::default());
            let Lenient(ours) = self.api.write(doing, api.replace(&name, &params, &ours)).await?;
            tracing::info!(slice = name, "took over a slice");
            self.cluster.lock().put_own(ours);
        }
        Ok(())
    }

    /// Adds newcomers to the adopted instances in the status. No other code adds entries. It changes the current
    /// status, on the condition that the object does not change before the write, since reports are written at the
    /// same time.
    async fn write_down(
        &self,
        registration: &Registration,
        ended: &[AdoptedInstance],
        newcomers: &[Adopted],
    ) -> Result<(), ApiError> {
        let key = &registration.key;
        let api = Api::<Lenient<ServiceRegistration>>::namespaced(
            self.api.client.clone(),
            &key.namespace,
        );
        for attempt in 1.. {
            let doing = || format!("read ServiceRegistration {key}");
            let Lenient(current) = self.api.read(doing, api.get_status(&key.name)).await?;
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
            match self.api.write(doing, api.patch_status(&key.name, &params, &patch)).await {
                Ok(Lenient(written)) => {
                    let version = Version::of(written.metadata.resource_version.as_deref());
                    self.states.with(key, &registration.uid, |state| {
                        state.adopted = Some((version, adopted));
                    });
                    return Ok(());
                }
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fence(&self) -> Fence<'_> {
        Fence { api: &self.api, clock: self.clock, states: &self.states }
    }

    /// The last step of a plan: completes the takeover once the operator's slices hold all wanted addresses (client
    /// required). It deletes the slices that the cluster's own controller has left and marks the Endpoints object as
    /// the operator's, each on the condition that the object is still as it was read.
    ///
    /// # Errors
    /// [`TakeoverError`] if a call fails, or if the status no longer lists the adopted instances.
    pub(crate) async fn complete(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        verdicts: &[Verdict],
    ) -> Result<Completion, TakeoverError> {
        let registration = &subject.registration;
        let adoption = &inputs.adoption;
        if adoption.leftovers.is_empty() && adoption.endpoints.is_none() {
            return Ok(Completion::NothingLeft);
        }
        let later = Completion::NotBefore(self.clock.now() + LOOK_AGAIN);
        let published = snapshot::published(registration, &self.cluster.lock());
        if !adoption.is_complete(verdicts, &published) {
            return Ok(later);
        }
        let (mut leftovers, mut endpoints) =
            (adoption.leftovers.clone(), adoption.endpoints.clone());
        let fence = self.fence();
        for slice in &mut leftovers {
            fence.put_up(slice).await?;
        }
        if let Some(endpoints) = &mut endpoints {
            fence.put_up(endpoints).await?;
        }
        fence.require_recorded(registration, &adoption.instances).await?;
        if !adoption.is_complete(verdicts, &self.published_now(registration).await?) {
            return Ok(later);
        }
        for slice in &leftovers {
            self.delete_leftover(registration, slice).await?;
        }
        if let Some(endpoints) = endpoints {
            self.take_endpoints(registration, endpoints).await?;
        }
        Ok(Completion::TakenOver)
    }

    /// The addresses in the operator's slices, from a live read.
    async fn published_now(
        &self,
        registration: &Registration,
    ) -> Result<PublishedAddresses, ApiError> {
        let slices = self.list_slices(registration).await?;
        let cluster = self.cluster.lock();
        let ours = slices.iter().filter(|slice| {
            cluster.ownership(&slice.metadata, &registration.uid) == Ownership::Ours
        });
        let texts = ours.flat_map(|slice| &slice.endpoints).flat_map(|it| &it.addresses);
        Ok(PublishedAddresses::as_ready(texts.filter_map(|text| text.parse().ok()).collect()))
    }

    async fn delete_leftover(
        &self,
        registration: &Registration,
        slice: &EndpointSlice,
    ) -> Result<(), ApiError> {
        let (namespace, name) = (&registration.key.namespace, slice.name_any());
        let exactly = DeleteParams::default().preconditions(Preconditions {
            uid: slice.uid(),
            resource_version: slice.resource_version(),
        });
        let api = Collection::of::<EndpointSlice>(&self.api.client, Some(namespace));
        let doing = || format!("delete EndpointSlice {namespace}/{name}, which ours replace");
        match self.api.write(doing, api.delete(&name, &exactly)).await {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
        tracing::info!(slice = name, "took the place of a slice");
        let version = Version::of(slice.metadata.resource_version.as_deref());
        self.cluster.lock().remove_own::<EndpointSlice>(&Key::new(namespace, name), version);
        Ok(())
    }

    async fn take_endpoints(
        &self,
        registration: &Registration,
        mut endpoints: Endpoints,
    ) -> Result<(), ApiError> {
        plan::mark_endpoints(&registration.owner(), &mut endpoints);
        let namespace = &registration.key.namespace;
        let api = Api::<Lenient<Endpoints>>::namespaced(self.api.client.clone(), namespace);
        let name = endpoints.name_any();
        let doing = || format!("take over Endpoints {namespace}/{name}");
        let (ours, params) = (Lenient(endpoints), PostParams::default());
        let Lenient(ours) = self.api.write(doing, api.replace(&name, &params, &ours)).await?;
        tracing::info!("took over the Endpoints");
        self.cluster.lock().put_own(ours);
        Ok(())
    }
}
