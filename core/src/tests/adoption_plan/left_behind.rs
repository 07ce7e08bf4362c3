//! What the cluster's own controllers have left of a selector.

use super::*;

/// A slice that the cluster's own controller left behind: its Pods are web-1 and so on, with addresses 10.0.0.1
/// and so on.
fn left_behind(pods: usize) -> ForeignObjects {
    let endpoints: Vec<Value> = (1..=pods)
        .map(|n| {
            json!({
                "addresses": [format!("10.0.0.{n}")], "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "namespace": "shop", "name": format!("web-{n}"),
                               "uid": format!("web-{n}-uid") },
            })
        })
        .collect();
    let changes = json!({
        "endpoints": endpoints,
        "metadata": {
            "name": "greeter-x7k2p",
            "labels": { "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "greeter", "uid": "u", "controller": true,
            }],
        },
    });
    of_slice(slice(&[], changes))
}

#[test]
fn what_the_cluster_left_of_a_selector_is_taken_over_without_the_annotation_and_without_dead_pods()
{
    let mut case = Case::new();
    case.world.registration.consent = Consent::Withheld;
    case.left_by_cluster = true;
    case.world = case.world.pod("web-1", ready_pod("web-1", &["10.0.0.1"]));
    let mut remade = ready_pod("web-2", &["10.0.0.2"]);
    remade["metadata"]["uid"] = json!("another");
    case.world = case.world.pod("web-2", remade);
    let mut ended = ready_pod("web-3", &["10.0.0.3"]);
    ended["status"]["phase"] = json!("Succeeded");
    case.world = case.world.pod("web-3", ended);
    let foreign = left_behind(4);
    let takeover = case.plan(&foreign).expect("taken over");
    let names: Vec<_> = takeover.newcomers.iter().map(|it| it.entry.name.clone()).collect();
    assert_eq!(names, ["adopted/10.0.0.1"], "the others are gone");
    assert_eq!(takeover.newcomers[0].entry.pod.as_deref(), Some("web-1/web-1-uid"));
    assert_eq!((takeover.slices, takeover.leftovers), (Vec::new(), foreign.slices.clone()));

    // The endpoint stays while its Pod exists, with the readiness that the kubelet reports.
    case.world.adopted = takeover.newcomers;
    let state = |world: &World| {
        let verdicts = world.decide(&Index::default(), at(0));
        verdicts.iter().map(|it| (it.state.as_str(), it.reason.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(state(&case.world), [("Ready", "Adopted")]);
    let mut unready = ready_pod("web-1", &["10.0.0.1"]);
    unready["status"]["conditions"] = json!([]);
    case.world = case.world.pod("web-1", unready);
    assert_eq!(state(&case.world), [("NotReady", "PodNotReady")]);
    case.world.pods.clear();
    assert_eq!(state(&case.world), []);
}

#[test]
fn a_pod_that_the_registration_does_not_select_keeps_everything_as_it_is() {
    let mut case = Case::new();
    case.world.registration.consent = Consent::Withheld;
    case.left_by_cluster = true;
    let mut other = ready_pod("web-1", &["10.0.0.1"]);
    other["metadata"]["labels"] = json!({ "app": "other" });
    case.world = case.world.pod("web-1", other);
    let message = case.refused(&left_behind(1));
    assert!(message.contains("Pod web-1 in it does not match spec.podSelector"), "{message}");
}

#[test]
fn nothing_is_taken_over_while_a_pod_behind_former_selector_endpoints_cannot_be_read() {
    let endpoints = json!({ "endpoints": [{
        "addresses": ["10.0.0.9"],
        "targetRef": { "kind": "Pod", "name": "web-9", "namespace": "shop", "uid": "web-9-uid" },
    }]});
    let mut left = slice(&[], endpoints);
    left.metadata.labels = Some(
        [(
            "endpointslice.kubernetes.io/managed-by".to_owned(),
            "endpointslice-controller.k8s.io".to_owned(),
        )]
        .into(),
    );
    let mut case = Case::new();
    case.left_by_cluster = true;
    let gone = case.plan(&of_slice(left.clone())).expect("taken over");
    assert_eq!(gone.newcomers, [], "a Pod that is not there leaves");
    case.unread = Some("web-9".to_owned());
    let message = case.refused(&of_slice(left));
    assert!(message.contains("Pod web-9 at 10.0.0.9 cannot be read"), "{message}");
}
