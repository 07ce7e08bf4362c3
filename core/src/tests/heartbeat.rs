//! Reading a heartbeat Lease.

use std::time::Duration;

use beatkeeper_api::heartbeat::Health;

use super::*;

fn read(json: Value) -> Heartbeat {
    Heartbeat::read(&lease(json))
}

#[test]
fn the_lease_of_the_contract_is_read_whole() {
    let beat = read(json!({
        "metadata": {
            "name": "greeter.greeter-7f9c", "uid": "u-1", "resourceVersion": "42",
            "labels": { "beatkeeper.dev/registration": "greeter" },
            "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "Pod", "name": "no", "uid": "no" },
                { "apiVersion": "v1", "kind": "Pod", "name": "greeter-7f9c", "uid": "p-1" },
            ],
            "annotations": {
                "beatkeeper.dev/health": "Failing", "beatkeeper.dev/note": "disk 91 %",
                "beatkeeper.dev/addresses": " 192.0.2.11,,2001:db8::1 ",
                "beatkeeper.dev/cordoned": "bad disk",
            },
        },
        "spec": {
            "holderIdentity": "greeter-7f9c", "leaseDurationSeconds": 30,
            "renewTime": "1970-01-01T00:00:01.000002Z", "leaseTransitions": 3,
        },
    }));
    assert_eq!(
        (beat.lease.as_str(), beat.registration.as_deref()),
        ("greeter.greeter-7f9c", Some("greeter"))
    );
    assert_eq!(beat.token, Token { uid: "u-1".into(), renewed: Some(1_000_002) });
    assert_eq!(beat.version, Version(42));
    let content = beat.content;
    assert_eq!(content.holder.as_deref(), Some("greeter-7f9c"));
    assert_eq!(content.origin, Origin::Pod { name: "greeter-7f9c".into(), uid: "p-1".into() });
    assert_eq!((content.health, content.note.as_deref()), (Ok(Health::Failing), Some("disk 91 %")));
    assert_eq!(content.addresses, ["192.0.2.11".into(), "2001:db8::1".into()]);
    assert_eq!(content.cordoned.as_deref(), Some("bad disk"));
    assert_eq!((content.deleting, content.duration), (false, Some(Duration::from_secs(30))));
}

#[test]
fn a_time_that_no_clock_can_hold_is_a_token_all_the_same() {
    let token = |time: &str| {
        read(json!({ "metadata": { "name": "x" }, "spec": { "renewTime": time } })).token.renewed
    };
    let last = token("9999-12-31T23:59:59.999999Z");
    assert!(last.is_some());
    assert_eq!(last, token("9999-12-31T23:59:59.999999Z"), "the same is no beat");
    assert_ne!(last, token("9999-12-31T23:59:59.999998Z"));
    assert_ne!(last, token("10000-01-01T04:59:59.000000Z"));
}

#[test]
fn an_empty_lease_is_an_outside_instance_that_never_beat() {
    let beat = read(json!({ "metadata": { "name": "x" } }));
    assert_eq!((beat.token.renewed, beat.content.origin), (None, Origin::Outside));
    assert_eq!((beat.content.holder, beat.content.health), (None, Ok(Health::Passing)));
    assert_eq!((beat.content.cordoned, beat.registration), (None, None));
}

#[test]
fn texts_that_the_api_server_does_not_bound_are_cut_where_no_name_can_match_them() {
    let long = "x".repeat(5000);
    let beat = read(json!({
        "metadata": { "name": "x",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": long, "uid": long }],
            "annotations": { "beatkeeper.dev/note": long, "beatkeeper.dev/cordoned": long },
        },
        "spec": { "holderIdentity": long },
    }));
    let cut = format!("{}…", "x".repeat(253));
    assert_eq!(beat.content.holder, Some(cut.clone()));
    assert_eq!(beat.content.origin, Origin::Pod { name: cut.clone(), uid: cut });
    assert_eq!(beat.content.note.map(|note| note.chars().count()), Some(256));
    assert_eq!(beat.content.cordoned.map(|reason| reason.chars().count()), Some(256));
}

#[test]
fn unused_metadata_is_not_kept_and_cannot_fail() {
    let lease = lease(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": "greeter.vm-1", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
            "labels": { "beatkeeper.dev/registration": "greeter" }, "annotations": null,
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"],
            "creationTimestamp": "no time at all",
            "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:spec": { ".": {} } } }, 7],
        },
    }));
    let metadata = &lease.metadata;
    assert_eq!((&metadata.managed_fields, &metadata.creation_timestamp), (&None, &None));
    assert_eq!(metadata.namespace.as_deref(), Some("shop"));
    let beat = Heartbeat::read(&lease);
    assert_eq!((beat.lease.as_str(), &*beat.token.uid), ("greeter.vm-1", "u-1"));
    assert_eq!((beat.registration.as_deref(), beat.version), (Some("greeter"), Version(7)));
    assert!(beat.content.deleting);
}

#[test]
fn a_lenient_lease_is_watched_where_leases_are() {
    use kube::Resource;
    fn watchable<K>()
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
    }
    watchable::<HeartbeatLease>();
    assert_eq!(
        HeartbeatLease::url_path(&(), Some("shop")),
        "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
    );
}

#[test]
fn a_rival_is_read_with_the_holder_of_the_name_and_without_the_time_of_its_last_look() {
    let read = |time: &str| {
        let rival = format!("vm-a/1 at 192.0.2.21\u{202e}; {time}");
        read(json!({ "metadata": { "name": "greeter.vm-x", "annotations": {
            "beatkeeper.dev/rival": rival, "beatkeeper.dev/incarnation": "vm-b/2\n",
        } } }))
        .content
    };
    let first = read("1970-01-01T00:00:00.000000Z");
    assert_eq!(
        first.rival.as_deref(),
        Some("held by vm-b/2\\n, and also claimed by vm-a/1 at 192.0.2.21\\u{202e}")
    );
    assert_eq!(read("1970-01-01T00:00:10.000000Z"), first, "each look would be news");
}

#[test]
fn what_users_write_has_no_character_that_is_not_seen() {
    let content = read(json!({
        "metadata": {
            "name": "greeter.vm-1",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "a\nb", "uid": "\u{1b}[2J" }],
            "annotations": {
                "beatkeeper.dev/note": "ok\n2026-01-01 ERROR", "beatkeeper.dev/cordoned": "\u{202e}x",
                "beatkeeper.dev/health": "\u{9b}", "beatkeeper.dev/addresses": "192.0.2.1\u{2028}x",
            },
        },
        "spec": { "holderIdentity": "vm\r1" },
    }))
    .content;
    let told = format!("{:?} {}", content, content.health.clone().expect_err("unknown"));
    let seen = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}');
    assert!(told.chars().all(seen), "{told}");
    assert_eq!(content.note.as_deref(), Some("ok\\n2026-01-01 ERROR"));
    assert_eq!(content.cordoned.as_deref(), Some("\\u{202e}x"));
}

/// Backups and restores remove owner references.
#[test]
fn a_lease_that_has_lost_its_owner_is_still_its_pods() {
    let origin = |change: Value| {
        let mut lease = json!({
            "metadata": {
                "name": "greeter.web-0", "annotations": { "beatkeeper.dev/pod-uid": "p-1" },
            },
            "spec": { "holderIdentity": "web-0" },
        });
        for (part, fields) in change.as_object().expect("parts") {
            for (field, value) in fields.as_object().expect("fields") {
                lease[part][field] = value.clone();
            }
        }
        let content = read(lease).content;
        (content.origin, content.owned)
    };
    let pod = |name: &str, uid: &str| Origin::Pod { name: name.to_owned(), uid: uid.to_owned() };
    assert_eq!(origin(json!({})), (pod("web-0", "p-1"), false));
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": "p-2" }]);
    let owned = json!({ "metadata": { "ownerReferences": owner } });
    assert_eq!(origin(owned), (pod("web-1", "p-2"), true), "the reference counts before");
    let other = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c-1" }]);
    let other = json!({ "metadata": { "ownerReferences": other } });
    assert_eq!(origin(other), (Origin::Outside, true));
    assert_eq!(origin(json!({ "spec": { "holderIdentity": "" } })).0, Origin::Outside);
    let empty = json!({ "metadata": { "annotations": { "beatkeeper.dev/pod-uid": "" } } });
    assert_eq!(origin(empty).0, Origin::Outside);
}
