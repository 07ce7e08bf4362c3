//! The fence of a takeover: it protects against a store that goes back to an earlier state in the middle of it.
//!
//! A takeover first records the adopted instances in the status, and then marks or deletes the objects of others. The
//! condition of that second write is the version of its own object only. If the store goes back between the two, the
//! record is lost, and the second write still succeeds. Then nothing keeps the adopted addresses.
//!
//! Therefore the takeover first annotates the object, then reads the record again, and then takes the object over on
//! the condition of the version that the annotation gave it. A history of the store that has this version also has the
//! record, because the record is older. A history that has lost the record shows this in the read, or has lost the
//! version (docs/adr/0017).

use std::fmt::Debug;

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::{
    adoption::adopted::Adopted,
    objects::{
        decode::{Decode, Lenient},
        marks::TAKING_OVER_ANNOTATION,
        registration::Registration,
    },
};
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt, api::PostParams};
use serde::Serialize;

use super::error::TakeoverError;
use crate::controller::{api::ApiServer, clock::Clock, error::ApiError, states::States};

/// Protects the takeover of one registration's objects.
pub(super) struct Fence<'a> {
    pub(super) api: &'a ApiServer,
    pub(super) clock: Clock,
    pub(super) states: &'a States,
}

impl Fence<'_> {
    /// Annotates an object of others, if it is still as it was read. The object gets the new version. The value of
    /// the annotation is new each time, because a write that changes nothing gives no version.
    pub(super) async fn put_up<K>(&self, object: &mut K) -> Result<(), ApiError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Decode
            + Serialize
            + Clone
            + Debug
            + Sync,
    {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let moment = self.clock.clocks().wall.to_string();
        let mut fenced = object.clone();
        fenced.annotations_mut().insert(TAKING_OVER_ANNOTATION.to_owned(), moment);
        // If an update has no managed fields, the API server keeps the existing ones.
        fenced.meta_mut().managed_fields = None;
        let api = Api::<Lenient<K>>::namespaced(self.api.client.clone(), &namespace);
        let doing = || format!("prepare {} {namespace}/{name} for its takeover", K::kind(&()));
        let (fenced, params) = (Lenient(fenced), PostParams::default());
        let Lenient(written) = self.api.write(doing, api.replace(&name, &params, &fenced)).await?;
        object.meta_mut().resource_version = written.resource_version();
        Ok(())
    }

    /// Reads the status, and requires that it lists these instances.
    ///
    /// # Errors
    /// [`TakeoverError::NotRecorded`] if it does not. Then the memory of this process is wrong, and is dropped.
    pub(super) async fn require_recorded(
        &self,
        registration: &Registration,
        instances: &[Adopted],
    ) -> Result<(), TakeoverError> {
        if instances.is_empty() {
            return Ok(());
        }
        let Registration { key, uid, .. } = registration;
        let client = self.api.client.clone();
        let api = Api::<Lenient<ServiceRegistration>>::namespaced(client, &key.namespace);
        let doing = || format!("read ServiceRegistration {key}");
        let Lenient(current) = self.api.read(doing, api.get_status(&key.name)).await?;
        let recorded = current.status.map(|status| status.adopted).unwrap_or_default();
        let is_lost = |it: &&Adopted| recorded.iter().all(|known| known.name != it.entry.name);
        let Some(lost) = instances.iter().find(is_lost) else { return Ok(()) };
        self.states.with(key, uid, |state| state.adopted = None);
        Err(TakeoverError::NotRecorded {
            registration: key.clone(),
            instance: lost.entry.name.clone(),
        })
    }
}
