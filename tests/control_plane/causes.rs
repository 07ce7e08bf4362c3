//! Instances that are refused or wait are published as soon as the cause is gone. This holds even
//! if the registration has no other instance that could cause a reconcile.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::Options;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod, Service},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::support::{Fixture, eventually};

const MACHINE: &str = "192.0.2.11";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_address_a_pod_had_is_back_when_the_pod_gives_it_up() {
    let fixture = Fixture::new("address-back", json!({})).await;
    fixture.join("vm-1", MACHINE).await;
    fixture.published_as_ready("greeter", &[MACHINE]).await;
    for (pod, end) in [("job-1", "Succeeded"), ("job-2", "Failed"), ("job-3", "")] {
        fixture.pod(pod, &[MACHINE], json!({})).await;
        let status = fixture.status("vm-1", "Rejected", "AddressRefused").await;
        assert!(status.message.contains(&format!("belongs to Pod {}/{pod}", fixture.name)));
        fixture.published_as_ready("greeter", &[]).await;
        if end.is_empty() {
            fixture.delete_pod(pod, 0).await;
        } else {
            // The network may now give the address of the Pod to the next Pod.
            fixture.pod_status(pod, &[MACHINE], false, end).await;
        }
        fixture.published_as_ready("greeter", &[MACHINE]).await;
        fixture.status("vm-1", "Ready", "Beating").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ran_to_its_end_takes_no_address_from_a_machine() {
    let fixture = Fixture::new("ended-job", json!({})).await;
    fixture.pod("job", &[MACHINE], json!({})).await;
    fixture.pod_status("job", &[MACHINE], false, "Succeeded").await;
    fixture.join("vm-1", MACHINE).await;
    fixture.published_as_ready("greeter", &[MACHINE]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_address_a_service_had_is_back_when_the_service_goes() {
    let fixture = Fixture::new("service-address", json!({})).await;
    let service =
        json!({ "metadata": { "name": "ledger" }, "spec": { "ports": [{ "port": 80 }] } });
    let ledger: Service = fixture.create(service).await;
    let address = ledger.spec.unwrap().cluster_ip.unwrap();
    // Another operator, for which the network of the Services lies in an allowed range.
    let Fixture { ns, operator, mut beats } = fixture;
    operator.stop().await;
    let range = format!("--outside-range={}={address}/32", ns.name);
    let _operator = ns.operator_with(&[&range]);
    beats.start(&beats.outside("vm-1", &address), Duration::from_secs(1)).await;
    let status = ns.instance("greeter", "vm-1", "Rejected", "AddressRefused").await;
    assert!(status.message.contains("belongs to Service"), "{}", status.message);
    ns.api::<Service>().delete("ledger", &kube::api::DeleteParams::default()).await.unwrap();
    ns.published_as_ready("greeter", &[&address]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_is_refused_or_waits_for_is_mended_by_the_pod() {
    let fixture =
        Fixture::new("pod-causes", json!({ "podSelector": { "matchLabels": { "a": "b" } } })).await;
    let ip = "10.88.0.1";
    fixture.join_pod("greeter-1", &[], json!({})).await;
    fixture.status("greeter-1", "Rejected", "PodNotSelected").await;
    fixture.patch::<Pod>("greeter-1", json!({ "metadata": { "labels": { "a": "b" } } })).await;
    fixture.status("greeter-1", "Waiting", "NoAddressYet").await;
    fixture.pod_status("greeter-1", &[ip], false, "Running").await;
    fixture.status("greeter-1", "NotReady", "PodNotReady").await;
    fixture.pod_status("greeter-1", &[ip], true, "Running").await;
    fixture.published_as_ready("greeter", &[ip]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lease_is_refused_for_is_mended_by_the_lease() {
    let one_family = json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"] });
    let fixture = Fixture::beside_service("lease-causes", one_family, json!({})).await;
    let mut lease = fixture.beats.outside("vm-1", "");
    lease.spec.as_mut().unwrap().holder_identity = None;
    fixture.beats.create(&lease).await;
    fixture.status("vm-1", "Rejected", "HolderMissing").await;
    let name = "greeter.vm-1";
    fixture.patch::<Lease>(name, json!({ "spec": { "holderIdentity": "vm-2" } })).await;
    fixture.status("vm-1", "Rejected", "HolderMismatch").await;
    fixture.patch::<Lease>(name, json!({ "spec": { "holderIdentity": "vm-1" } })).await;
    fixture.status("vm-1", "Rejected", "AddressMissing").await;
    let addresses =
        |text: &str| json!({ "metadata": { "annotations": { "beatkeeper.dev/addresses": text } } });
    fixture.patch::<Lease>(name, addresses("203.0.113.1")).await;
    fixture.status("vm-1", "Rejected", "AddressRefused").await;
    fixture.patch::<Lease>(name, addresses("2001:db8::1")).await;
    fixture.status("vm-1", "Rejected", "AddressFamilyMismatch").await;
    fixture.patch::<Lease>(name, addresses(MACHINE)).await;
    fixture.published_as_ready("greeter", &[MACHINE]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_spec_refuses_is_mended_by_the_spec() {
    let ports = |target: &str| json!([{ "name": "grpc", "port": 80, "targetPort": target }]);
    let fixture = Fixture::new("spec-causes", json!({ "ports": ports("web") })).await;
    fixture.join("vm-1", MACHINE).await;
    fixture.status("vm-1", "Rejected", "PortUnresolved").await;
    let mended =
        json!({ "spec": { "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }] } });
    fixture.patch::<ServiceRegistration>("greeter", mended).await;
    fixture.published_as_ready("greeter", &[MACHINE]).await;
}

/// A Lease without its owner reference, as after a restore or after a tool has removed references.
/// The Lease still says which Pod owns it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_has_lost_its_owner_stays_its_pods_and_is_swept_when_the_pod_is_gone() {
    let fixture = Fixture::new("lost-owner", json!({ "ttl": "3s", "interval": "1s" })).await;
    let uid = fixture.pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let mut lease = fixture.beats.in_pod("greeter-1", &uid);
    lease.metadata.annotations = Some([("beatkeeper.dev/pod-uid".to_owned(), uid)].into());
    let Fixture { ns, operator: _operator, mut beats } = fixture;
    beats.start(&lease, Duration::from_secs(1)).await;
    ns.published_as_ready("greeter", &["10.88.0.1"]).await;
    let observer = ns.observe("greeter").await;
    let name = "greeter.greeter-1";
    ns.patch::<Lease>(name, json!({ "metadata": { "ownerReferences": null } })).await;
    // When the operator has published this other instance, it has also seen the change.
    beats.start(&beats.outside("vm-1", MACHINE), Duration::from_secs(1)).await;
    ns.published_as_ready("greeter", &["10.88.0.1", MACHINE]).await;
    assert_eq!(observer.left(), [""; 0]);

    beats.die("greeter-1");
    ns.delete_pod("greeter-1", 0).await;
    ns.published_as_ready("greeter", &[MACHINE]).await;
    eventually("the Lease is swept", async || ns.lease(name).await.is_none().then_some(())).await;
}

/// A namespace that was restored from a backup. The Lease belongs to an earlier Pod with the same
/// name.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_lease_without_its_owner_is_told_to_be_an_earlier_pods() {
    let fixture = Fixture::new("restored-lease", json!({})).await;
    fixture.pod("greeter-0", &["10.88.0.1"], json!({})).await;
    let mut lease = fixture.beats.outside("greeter-0", "");
    lease.metadata.annotations =
        Some([("beatkeeper.dev/pod-uid".to_owned(), "of-before".to_owned())].into());
    fixture.beats.create(&lease).await;
    let status = fixture.status("greeter-0", "Rejected", "PodReplaced").await;
    assert!(status.message.contains("belongs to an earlier Pod greeter-0"), "{}", status.message);
}

/// An operator for the whole cluster watches Nodes.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gets_the_zone_that_its_node_gets_late() {
    let fixture = Fixture::on_own_plane("late-zone", Options::default()).await;
    let nodes: Api<Node> = Api::all(fixture.client.clone());
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" } });
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({ "nodeName": "node-1" })).await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    for zone in ["eu-1a", "eu-1b"] {
        let labels = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } });
        nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
        eventually(&format!("the endpoint is in {zone}"), async || {
            let slices = fixture.published("greeter").await.slices;
            let endpoint = slices.first()?.endpoints.first()?;
            (endpoint.zone.as_deref() == Some(zone)).then_some(())
        })
        .await;
    }
}
