//! Garbage collection of what a deleted registration has left.
//!
//! During a replacement a registration is gone for a moment, and the next one of the same name takes over what
//! it left. Therefore nothing is deleted at once. Slices and Endpoints stay for [`ADDRESSES_STAY`], since no
//! decision updates them in the meantime. A Service, which is harmless without addresses, stays for
//! [`SERVICE_STAYS`]. Each object is deleted after a live read has shown that its registration is gone, on the
//! condition that it is still as it was read.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Endpoints, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{api::ApiServer, clock::Clock, cluster::Cluster, error::ApiError},
    kube_client::list::Collection,
};
use beatkeeper_core::objects::marks::OWNED_BY_ANNOTATION;
use beatkeeper_core::{
    cluster_cache::{
        belongings::{Abandoned, Kind},
        watched::Watched,
    },
    objects::{
        decode::{Decode, Lenient},
        marks::mark_of,
    },
    vocabulary::{monotonic_time::MonotonicTime, version::Version},
};

/// How long slices and Endpoints outlive their registration.
const ADDRESSES_STAY: Duration = Duration::from_secs(10);
/// How long a Service outlives its registration. This is longer, since its addresses and node ports go with it.
const SERVICE_STAYS: Duration = Duration::from_secs(30);
/// The interval between two searches for abandoned objects.
const PAUSE: Duration = Duration::from_secs(1);

/// A kind of object that registrations leave.
trait Collectable:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Watched
    + Serialize
    + Decode
    + Clone
    + Debug
    + Send
    + Sync
{
}

impl Collectable for EndpointSlice {}
impl Collectable for Endpoints {}
impl Collectable for Service {}

/// Collects what registrations of a namespace, or of all namespaces, have left. Objects of other namespaces may be
/// watched for their addresses ([`address_scope`](crate::controller::watch::address_scope)). They are not collected,
/// since their registrations are not known here.
#[derive(Clone)]
pub(crate) struct AbandonedObjects {
    pub(crate) namespace: Option<String>,
    pub(crate) dry_run: bool,
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
}

impl AbandonedObjects {
    /// Collects what registrations of a namespace, or of all namespaces, have left, until `over` is cancelled. Then
    /// it finishes the running work. Objects of other namespaces may be watched for their addresses
    /// ([`address_scope`](crate::controller::watch::address_scope)). They are not collected, since their registrations are not known
    /// here.
    pub(crate) async fn run(self, over: CancellationToken) {
        if self.dry_run {
            // This task must not end before the term: a part that ends by itself ends the term.
            return over.cancelled().await;
        }
        let mut since: HashMap<Abandoned, MonotonicTime> = HashMap::new();
        let mut logged: HashSet<Abandoned> = HashSet::new();
        while over.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
            let (abandoned, undecided) = {
                let cluster = self.cluster.lock();
                (
                    cluster.abandoned(self.namespace.as_deref()),
                    cluster.undecided(self.namespace.as_deref()),
                )
            };
            log_undecided(undecided, &mut logged);
            let now = self.clock.now();
            // An object that is taken over in the meantime starts a new waiting time when it is abandoned again.
            since =
                abandoned.iter().map(|it| (it.clone(), *since.get(it).unwrap_or(&now))).collect();
            for object in &abandoned {
                if over.is_cancelled() || !self.api.may_write() {
                    return;
                }
                if !object.orphaned && now < since[object] + stays(object.kind) {
                    continue;
                }
                match self.collect(object).await {
                    Ok(()) => continue,
                    // The CRD has been deleted. This says nothing about what the registration has published.
                    Err(error) if error.is_of_unknown_kind() => tracing::warn!(
                        registration = %object.registration,
                        "the API server does not know registrations any more; what they published stays"
                    ),
                    Err(error) if error.is_conflict() => {}
                    Err(error) => tracing::warn!(%error, "cannot collect; it is tried again"),
                }
                // The next attempt comes after the waiting time, and not in the next search.
                since.insert(object.clone(), now);
            }
        }
    }

    async fn collect(&self, object: &Abandoned) -> Result<(), ApiError> {
        match object.kind {
            Kind::EndpointSlice => self.collect_as::<EndpointSlice>(object).await,
            Kind::Endpoints => self.collect_as::<Endpoints>(object).await,
            Kind::Service => self.collect_as::<Service>(object).await,
        }
    }

    async fn collect_as<K: Collectable>(&self, object: &Abandoned) -> Result<(), ApiError> {
        let Abandoned { key, orphaned, .. } = object;
        if !orphaned && (self.is_wanted(object).await? || !self.can_be_made().await?) {
            return Ok(());
        }
        let api = Api::<Lenient<K>>::namespaced(self.api.client.clone(), &key.namespace);
        let what = format!("{:?} {key}", object.kind);
        let current = match self.api.read(|| format!("read {what}"), api.get(&key.name)).await {
            Err(error) if error.is_absent() => return Ok(()),
            current => current?.0,
        };
        if mark_of(Resource::meta(&current)).is_none_or(|marked| marked.uid != object.owner) {
            // A registration owns the object again.
            return Ok(());
        }
        if *orphaned {
            return self.release(current, &what, &api).await;
        }
        let exactly = DeleteParams::default().preconditions(Preconditions {
            uid: current.uid(),
            resource_version: current.resource_version(),
        });
        let version = Version::of(current.resource_version().as_deref());
        let all = Collection::of::<K>(&self.api.client, Some(&key.namespace));
        self.api.write(|| format!("delete {what}"), all.delete(&key.name, &exactly)).await?;
        self.cluster.lock().remove_own::<K>(key, version);
        tracing::info!(kind = ?object.kind, name = %key, registration = %object.registration, "collected");
        Ok(())
    }

    /// Removes the operator's annotation from an object that `--cascade=orphan` left, so that it stays, also after
    /// a restart.
    async fn release<K: Collectable>(
        &self,
        mut current: K,
        what: &str,
        api: &Api<Lenient<K>>,
    ) -> Result<(), ApiError> {
        let name = current.name_any();
        let doing = || format!("let go of {what}");
        let Lenient(released) = if K::kind(&()) == "Service" {
            let patch = json!({ "metadata": {
                "resourceVersion": current.resource_version(),
                "annotations": { OWNED_BY_ANNOTATION: null },
            }});
            let patch = Patch::Merge(patch);
            self.api.write(doing, api.patch(&name, &PatchParams::default(), &patch)).await?
        } else {
            current.annotations_mut().remove(OWNED_BY_ANNOTATION);
            self.api
                .write(doing, api.replace(&name, &PostParams::default(), &Lenient(current)))
                .await?
        };
        self.cluster.lock().put_own(released);
        Ok(())
    }

    /// Whether the registration exists after all, or a new registration of the same name uses the same Service. The
    /// watch will show the registration soon.
    async fn is_wanted(&self, object: &Abandoned) -> Result<bool, ApiError> {
        let key = &object.registration;
        let api = Api::<Lenient<ServiceRegistration>>::namespaced(
            self.api.client.clone(),
            &key.namespace,
        );
        let doing = || format!("read ServiceRegistration {key}");
        match self.api.read(doing, api.get_status(&key.name)).await {
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
            Ok(Lenient(current)) => {
                let for_it =
                    |it: &beatkeeper_core::vocabulary::key::Key| it.name == current.service_name();
                Ok(current.uid().as_deref() == Some(&object.owner)
                    || object.service.as_ref().is_some_and(for_it))
            }
        }
    }

    /// Whether registrations can be created. While their CRD is being deleted, all registrations are deleted one by
    /// one, and the API server answers 404 for each deleted one. This says nothing about what the registration has
    /// published. During that time the API server does not offer the verb `create` (apiextensions-apiserver,
    /// pkg/apiserver/customresource_discovery_controller.go).
    async fn can_be_made(&self) -> Result<bool, ApiError> {
        let version = ServiceRegistration::api_version(&());
        let doing = || format!("read what {version} offers");
        let offered =
            self.api.read(doing, self.api.client.list_api_group_resources(&version)).await?;
        let plural = ServiceRegistration::plural(&());
        let can_be_made = offered
            .resources
            .iter()
            .any(|it| it.name == plural && it.verbs.iter().any(|verb| verb == "create"));
        if !can_be_made {
            tracing::warn!("the CRD of registrations is being deleted; what they published stays");
        }
        Ok(can_be_made)
    }
}

/// Logs once for each object that it stays, and what to do.
fn log_undecided(undecided: Vec<Abandoned>, logged: &mut HashSet<Abandoned>) {
    for Abandoned { kind, key, registration, .. } in
        undecided.iter().filter(|it| !logged.contains(*it))
    {
        tracing::warn!(
            ?kind, name = %key, %registration,
            "an earlier version has made this, or it is a copy from another namespace; its registration is not there, and it \
             stays: delete it if nothing uses it"
        );
    }
    *logged = undecided.into_iter().collect();
}

fn stays(kind: Kind) -> Duration {
    match kind {
        Kind::EndpointSlice | Kind::Endpoints => ADDRESSES_STAY,
        Kind::Service => SERVICE_STAYS,
    }
}
