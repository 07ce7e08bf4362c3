//! Registrations that are deleted and created again, as `kubectl replace --force`, GitOps tools,
//! and `helm uninstall` with `helm install` do. Also registrations that do not come back.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::Options;
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Service},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::support::{Fixture, Operator, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const OWNED_BY: &str = "beatkeeper.dev/owned-by";

impl TestNamespace {
    /// Deletes the registration, and waits until it is gone.
    async fn unregister(&self, name: &str, how: &DeleteParams) {
        let registrations: Api<ServiceRegistration> = self.api();
        registrations.delete(name, how).await.unwrap();
        eventually("the registration is gone", async || {
            registrations.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// The metadata of everything that is published for a Service, and of the Service.
    async fn made(&self, service: &str) -> Vec<ObjectMeta> {
        let published = self.published(service).await;
        let slices = published.slices.into_iter().map(|slice| slice.metadata);
        let endpoints = published.endpoints.into_iter().map(|endpoints| endpoints.metadata);
        let service = self.api::<Service>().get_opt(service).await.unwrap();
        slices.chain(endpoints).chain(service.map(|service| service.metadata)).collect()
    }

    /// Waits until all three objects are marked as owned by the registration.
    async fn all_owned_by(&self, registration: &ServiceRegistration) {
        let uid = registration.uid().unwrap();
        let owner = format!("{}:{}/{uid}", self.name, registration.name_any());
        eventually(&format!("everything is owned by {owner}"), async || {
            let made = self.made("greeter").await;
            let owned = made.iter().filter(|it| {
                it.owner_references.is_none()
                    && mark(it).is_some_and(|value| value.starts_with(&owner))
            });
            (owned.count() == 3 && made.len() == 3).then_some(())
        })
        .await;
    }
}

fn mark(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(OWNED_BY).map(String::as_str)
}

/// The settings on a Service that come from people and the cluster.
fn settings(service: &Service) -> Value {
    let mut annotations = service.annotations().clone();
    annotations.remove(OWNED_BY);
    json!({ "uid": service.uid(), "annotations": annotations, "spec": service.spec })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_registration_keeps_user_settings_of_its_service_and_unpublishes_no_instance() {
    let ns = TestNamespace::new("replaced").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    let theirs = json!({
        "metadata": { "annotations": { "example.com/balancer": "internal" } },
        "spec": { "type": "NodePort", "sessionAffinity": "ClientIP" },
    });
    let service: Service = ns.patch("greeter", theirs).await;
    assert!(service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port.is_some());
    let observer = ns.observe("greeter").await;
    for round in 0..10 {
        let in_the_foreground = DeleteParams::foreground();
        let how = if round % 2 == 0 { DeleteParams::background() } else { in_the_foreground };
        ns.unregister("greeter", &how).await;
        let new = ns.greeter().await;
        ns.all_owned_by(&new).await;
        let now: Service = ns.api().get("greeter").await.unwrap();
        assert_eq!(settings(&now), settings(&service), "round {round}");
    }
    ns.unregister("greeter", &DeleteParams::orphan()).await;
    ns.greeter().await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let now: Service = ns.api().get("greeter").await.unwrap();
    assert_eq!(settings(&now), settings(&service), "orphaned");
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    assert_eq!(observer.left(), [""; 0]);
    // The new registration decides about its instances now, so none is kept forever.
    beats.die("vm-2");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registration_that_is_gone_has_made_is_collected_and_nothing_of_others() {
    let ns = TestNamespace::new("collected").await;
    ns.service("theirs", json!({})).await;
    let operator = ns.operator();
    ns.greeter().await;
    let mut spec = TestNamespace::usual_spec();
    spec["serviceName"] = json!("theirs");
    ns.register("beside", spec).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    let mut others = ns.beats("beside");
    others.start(&others.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.published_as_ready("theirs", &["192.0.2.2"]).await;
    // A copy under another name, like one made from the output of `kubectl get --output yaml`.
    let original: Service = ns.api().get("greeter").await.unwrap();
    ns.create::<Service>(json!({
        "metadata": {
            "name": "copy", "labels": original.labels(), "annotations": original.annotations(),
        },
        "spec": { "ports": [{ "name": "grpc", "port": 80 }] },
    }))
    .await;
    // One registration is deleted while an operator runs, the other while none runs.
    ns.unregister("greeter", &DeleteParams::default()).await;
    drop(operator);
    ns.unregister("beside", &DeleteParams::default()).await;
    let _operator = ns.operator();
    eventually("all that was made is gone", async || {
        let made = [ns.made("greeter").await, ns.made("theirs").await].concat();
        let left: Vec<_> = made.iter().filter_map(|it| it.name.clone()).collect();
        (left == ["theirs"]).then_some(())
    })
    .await;
    for service in ["theirs", "copy"] {
        assert!(ns.api::<Service>().get_opt(service).await.unwrap().is_some(), "{service}");
    }
}

/// How a restore or a GitOps tool writes an object in another namespace.
fn copy_of<K: Resource + Serialize>(object: &K) -> Value {
    let mut copy = serde_json::to_value(object).unwrap();
    let metadata = object.meta();
    copy["metadata"] = json!({
        "name": metadata.name, "labels": metadata.labels, "annotations": metadata.annotations,
    });
    for field in ["clusterIP", "clusterIPs"] {
        if let Some(spec) = copy["spec"].as_object_mut() {
            spec.remove(field);
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_another_namespace_is_neither_collected_nor_overwritten() {
    let ns = TestNamespace::new("copied").await;
    let there = TestNamespace::new("copy").await;
    let flags: Vec<String> = ns.ranges().into_iter().chain(there.ranges()).collect();
    // An operator that watches both namespaces.
    let both = ["--namespace", &there.name].into_iter();
    let flags: Vec<&str> = both.chain(flags.iter().map(String::as_str)).collect();
    let _operator = Operator::start(ns.plane, &ns.name, &flags);
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    let published = ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let service: Service = ns.api().get("greeter").await.unwrap();
    there.create::<Service>(copy_of(&service)).await;
    there.create::<Endpoints>(copy_of(published.endpoints.as_ref().unwrap())).await;
    there.create::<EndpointSlice>(copy_of(&published.slices[0])).await;
    let copies = there.made("greeter").await;
    assert_eq!(copies.len(), 3);
    let versions = |made: &[ObjectMeta]| -> Vec<_> {
        made.iter().map(|it| (it.name.clone(), it.resource_version.clone())).collect()
    };

    // The original is deleted with everything that belongs to it.
    beats.leave("vm-1").await;
    ns.unregister("greeter", &DeleteParams::default()).await;
    eventually("what was made is collected", async || {
        ns.made("greeter").await.is_empty().then_some(())
    })
    .await;
    assert_eq!(versions(&there.made("greeter").await), versions(&copies));

    // A registration of the same name uses the Service as it is, and reports what blocks it.
    there.greeter().await;
    let message = there.condition("greeter", "Ready", "False", "ServedByOthers").await;
    let maker = format!("the user who copied it from namespace {}", ns.name);
    assert!(message.contains(&maker), "{message}");
    assert_eq!(versions(&there.made("greeter").await), versions(&copies));

    // With consent it takes over the copied objects.
    let consent = json!({ "metadata": { "annotations": { "beatkeeper.dev/adopt": "true" } } });
    let registration: ServiceRegistration = there.patch("greeter", consent).await;
    there.published_as_ready("greeter", &["192.0.2.1"]).await;
    let mark = format!("{}:greeter/{}", there.name, registration.uid().unwrap());
    eventually("slices and Endpoints name their owner", async || {
        let made = there.made("greeter").await;
        (made.iter().filter(|it| self::mark(it) == Some(&mark)).count() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_has_marked_is_marked_anew_and_collected() {
    let ns = TestNamespace::new("former-mark").await;
    let operator = ns.operator();
    let registration = ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    let published = ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    drop(operator);
    let uid = registration.uid().unwrap();
    let former = |more: &str| json!({ "metadata": { "annotations": { OWNED_BY: format!("greeter/{uid}{more}") } } });
    ns.patch::<Service>("greeter", former("/greeter")).await;
    ns.patch::<Endpoints>("greeter", former("")).await;
    ns.patch::<EndpointSlice>(&published.slices[0].name_any(), former("")).await;
    let observer = ns.observe("greeter").await;
    let operator = ns.operator();
    ns.all_owned_by(&registration).await;
    assert_eq!(observer.left(), [""; 0]);
    drop(operator);

    // A registration is deleted before its old mark is replaced, while no operator runs. Its slice
    // may also be a copy, so it stays.
    let slice = published.slices[0].name_any();
    ns.patch::<EndpointSlice>(&slice, former("")).await;
    ns.unregister("greeter", &DeleteParams::default()).await;
    let operator = ns.operator();
    eventually("what says its namespace is collected", async || {
        let made = ns.made("greeter").await;
        (made.len() == 1).then_some(())
    })
    .await;
    let left = ns.published("greeter").await.slices;
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [slice]);
    assert!(operator.logged().contains("or it is a copy from another namespace"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_orphaned_on_purpose_is_let_go_of() {
    let ns = TestNamespace::new("orphaned").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.unregister("greeter", &DeleteParams::orphan()).await;
    eventually("nothing says any more that it is to be collected", async || {
        let made = ns.made("greeter").await;
        assert_eq!(made.len(), 3);
        made.iter().all(|it| mark(it).is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_has_made_is_taken_from_the_garbage_collector() {
    let ns = TestNamespace::new("migrated").await;
    let operator = ns.operator();
    let registration = ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    let published = ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    drop(operator);
    let as_before = json!({ "metadata": {
        "annotations": { OWNED_BY: null },
        "ownerReferences": [{
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "name": "greeter", "uid": registration.metadata.uid,
            "controller": true, "blockOwnerDeletion": true,
        }],
    }});
    ns.patch::<Service>("greeter", as_before.clone()).await;
    ns.patch::<Endpoints>("greeter", as_before.clone()).await;
    ns.patch::<EndpointSlice>(&published.slices[0].name_any(), as_before).await;
    let observer = ns.observe("greeter").await;
    let _operator = ns.operator();
    ns.all_owned_by(&registration).await;
    assert_eq!(observer.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitops_tools_write_on_a_registration_reaches_nothing_else_and_is_no_reason_to_write()
{
    let ns = TestNamespace::new("gitops").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let mark = ns.settled(Duration::from_secs(2)).await;
    // As Argo CD and Flux do: server-side apply with their own field manager, and with their
    // tracking labels and annotations.
    let tracked = json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": {
            "name": "greeter",
            "labels": {
                "app.kubernetes.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "shop",
            },
            "annotations": { "argocd.argoproj.io/tracking-id": "shop:greeter" },
        },
        "spec": TestNamespace::usual_spec(),
    });
    for manager in ["argocd-controller", "kustomize-controller"] {
        let params = PatchParams::apply(manager).force();
        let registrations: Api<ServiceRegistration> = ns.api();
        registrations.patch("greeter", &params, &Patch::Apply(&tracked)).await.unwrap();
    }
    // They may also label the Service, if they are configured so.
    let theirs = json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "shop" } } });
    ns.patch::<Service>("greeter", theirs).await;
    ns.settled(Duration::from_secs(2)).await;
    assert_eq!(ns.written_since(mark).await, []);
    for metadata in ns.made("greeter").await {
        let text = serde_json::to_string(&(&metadata.labels, &metadata.annotations)).unwrap();
        assert!(!text.contains("argocd") && !text.contains("fluxcd"), "{text}");
    }
    let service: Service = ns.api().get("greeter").await.unwrap();
    assert_eq!(service.labels()["app.kubernetes.io/instance"], "shop");
    // The registration is pruned, and then applied again with the next commit.
    let observer = ns.observe("greeter").await;
    ns.unregister("greeter", &DeleteParams::foreground()).await;
    let new = ns.greeter().await;
    ns.all_owned_by(&new).await;
    assert_eq!(observer.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crd_that_is_pruned_takes_the_registrations_along_and_nothing_that_they_publish() {
    let fixture = Fixture::on_own_plane("crd-pruned", Options::default()).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
    let service: Service = fixture.api().get("greeter").await.unwrap();
    let observer = fixture.observe("greeter").await;
    let crds = Api::<CustomResourceDefinition>::all(fixture.client.clone());
    let name = "serviceregistrations.beatkeeper.dev";
    // While at least one registration exists, the API server answers with a plain 404 for deleted
    // ones.
    fixture.register("held", TestNamespace::usual_spec()).await;
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    fixture.patch::<ServiceRegistration>("held", held).await;
    crds.delete(name, &DeleteParams::default()).await.unwrap();
    // Slices are checked ten seconds after their registration is deleted.
    eventually("the operator would collect, and sees that all registrations go", async || {
        let logged = fixture.operator.logged();
        logged.contains("the CRD of registrations is being deleted").then_some(())
    })
    .await;
    assert_eq!(observer.left(), [""; 0]);
    let free = json!({ "metadata": { "finalizers": null } });
    fixture.patch::<ServiceRegistration>("held", free).await;
    eventually("the operator would collect, and is not told that it may", async || {
        let logged = fixture.operator.logged();
        logged.contains("does not know registrations any more").then_some(())
    })
    .await;
    assert_eq!(observer.left(), [""; 0]);
    fixture.plane.declare(&beatkeeper_api::crd()).await.unwrap();
    let new = fixture.greeter().await;
    fixture.all_owned_by(&new).await;
    let now: Service = fixture.api().get("greeter").await.unwrap();
    assert_eq!(settings(&now), settings(&service));
    assert_eq!(observer.left(), [""; 0]);
}
