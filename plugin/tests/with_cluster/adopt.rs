//! `adopt`: the operator rehearses, and then takes over.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    stage::{ANN, Stage, eventually, spawn},
    terminal::Terminal,
};

/// For tests in which the operator works. The machine may be busy.
const PATIENT: &str = "--timeout=2m";

const BY_HAND: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: orders }\n\
    spec: { ports: [{ name: http, port: 80, targetPort: 8080 }] }\n---\n\
    apiVersion: v1\nkind: Endpoints\nmetadata: { name: orders }\nsubsets:\n\
    - addresses: [{ ip: 192.0.2.21 }, { ip: 192.0.2.22 }]\n  ports: [{ name: http, port: 8080 }]\n";

/// A Service with hand-written Endpoints, which the cluster has mirrored.
async fn by_hand(stage: &Stage) {
    stage.apply(BY_HAND);
    eventually("the Endpoints are mirrored", || {
        let slices = items(stage, "endpointslices");
        if slices.len() == 1 { Ok(()) } else { Err(format!("{slices:?}")) }
    });
}

fn items(stage: &Stage, kind: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(&stage.read(&["get", kind, "-o", "json"])).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// The Endpoints, the slices and the Service, as they are stored.
fn stored(stage: &Stage, service: &str) -> Vec<Value> {
    let mut all = items(stage, "endpointslices");
    for kind in ["endpoints", "service"] {
        let text = stage.read(&["get", kind, service, "-o", "json"]);
        all.push(serde_json::from_str(&text).unwrap());
    }
    all
}

fn registrations(stage: &Stage) -> Vec<Value> {
    items(stage, "serviceregistrations")
}

/// The managers of all slices.
fn managers(stage: &Stage) -> Vec<String> {
    let label = |slice: &Value| {
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    items(stage, "endpointslices").iter().map(label).collect()
}

#[tokio::test]
async fn hand_written_endpoints_are_rehearsed_shown_and_taken_over_after_consent() {
    let stage = Stage::new("adopt").await;
    by_hand(&stage).await;
    let before = stored(&stage, "orders");
    let tried =
        stage.plugin(&["adopt", "orders", "--ttl", "6s", "--interval", "2s", "--dry-run=server"]);
    assert_eq!(tried.code, 0, "{tried:?}");
    assert!(
        tried.out.contains("kind: ServiceRegistration") && tried.out.contains("ttl: 6s"),
        "{tried:?}"
    );
    assert!(tried.err.contains("service/orders adopted (server dry run)"), "{tried:?}");
    assert_eq!(registrations(&stage), [] as [Value; 0]);

    let refused = stage.plugin(&["adopt", "orders", PATIENT]);
    assert_eq!(refused.code, 1);
    for line in [
        "would take over endpoints orders",
        "No address, port or readiness would change.",
        "0 of 2 published addresses beat already.",
        "Afterwards the operator manages the slices and Endpoints of Service orders.",
    ] {
        assert!(refused.out.contains(line), "{line}: {refused:?}");
    }
    assert!(
        refused.err.ends_with(
            "error: nothing was changed: there is no terminal to ask on\nAdd --yes to adopt it all the same.\n\
             The registration of the rehearsal is deleted again, and what is published is as before.\n"
        ),
        "{refused:?}"
    );
    assert_eq!(registrations(&stage), [] as [Value; 0]);
    assert_eq!(stored(&stage, "orders"), before, "the rehearsal has changed nothing");

    let adopted = stage.plugin(&["adopt", "orders", "--yes", PATIENT]);
    assert_eq!(adopted.code, 0, "{adopted:?}");
    assert!(adopted.out.ends_with("service/orders adopted\n"), "{adopted:?}");
    eventually("only the operator's slices are left", || match managers(&stage) {
        all if all == ["beatkeeper.dev"] => Ok(()),
        all => Err(format!("{all:?}")),
    });
    stage.until(&["get", "orders"], "both stay", |tree| {
        tree.contains("2 of 2 instances ready") && tree.contains("adopted/192.0.2.21")
    });
    let again = stage.plugin(&["adopt", "orders", "--yes", PATIENT]);
    assert_eq!(
        (again.code, again.err),
        (
            1,
            format!(
                "error: Service orders cannot be adopted: ServiceRegistration orders publishes it already\n\
                 See what it does: kubectl beatkeeper -n {} get orders\n",
                stage.namespace
            )
        )
    );
}

#[tokio::test]
async fn a_refusal_of_the_operator_is_told_with_object_field_and_remedy_and_leaves_nothing() {
    let stage = Stage::new("adopt-refused").await;
    stage.apply(&BY_HAND.replace("192.0.2.22", "203.0.113.9"));
    let printed = stage.plugin(&["adopt", "orders", "--yes", PATIENT]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(printed.err.contains("error: the operator refuses (AdoptionRefused): "), "{printed:?}");
    assert!(
        printed.err.contains("Endpoints orders") && printed.err.contains("203.0.113.9"),
        "{printed:?}"
    );
    assert!(printed.err.contains("\nDo what the message says.\n"), "{printed:?}");
    assert_eq!(registrations(&stage), [] as [Value; 0]);
    let absent = stage.plugin(&["adopt", "nothing"]);
    assert_eq!(
        absent.err,
        format!(
            "error: there is no Service nothing in namespace {}\nChoose the namespace with --namespace.\n",
            stage.namespace
        )
    );
    stage.apply("apiVersion: v1\nkind: Service\nmetadata: { name: alias }\nspec: { type: ExternalName, externalName: example.org }\n");
    let alias = stage.plugin(&["adopt", "alias"]);
    assert!(
        alias.err.contains("Service alias cannot be adopted: spec.type is ExternalName"),
        "{alias:?}"
    );
}

#[tokio::test]
async fn without_an_operator_the_rehearsal_ends_and_is_removed() {
    let stage = Stage::without_operator("adopt-alone").await;
    by_hand(&stage).await;
    let printed = stage.plugin(&["adopt", "orders", "--yes", "--timeout=2s"]);
    assert_eq!(printed.code, 1);
    assert!(
        printed.err.contains(
            "error: no operator has rehearsed the adoption within 2s\nSee that the operator runs"
        ),
        "{printed:?}"
    );
    assert_eq!(registrations(&stage), [] as [Value; 0]);
}

#[tokio::test]
async fn a_user_who_may_not_end_the_dry_run_leaves_nothing() {
    let stage = Stage::new("adopt-rights").await;
    by_hand(&stage).await;
    let before = stored(&stage, "orders");
    stage.grant(
        ANN,
        &[
            "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list, create, delete] }",
            "{ apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list] }",
            "{ apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list] }",
            "{ apiGroups: [\"\"], resources: [services, endpoints, pods], verbs: [get, list] }",
        ],
    );
    let printed = eventually("the role applies", || {
        match stage.plugin(&["adopt", "orders", "--yes", "--as", "ann", PATIENT]) {
            printed if printed.err.contains("cannot read Service") => Err(printed.err),
            printed => Ok(printed),
        }
    });
    assert_eq!(printed.code, 1);
    let problem = "cannot end the dry run of ServiceRegistration orders in namespace";
    assert!(printed.err.contains(problem), "{printed:?}");
    assert!(
        printed.err.contains("This needs patch for serviceregistrations.beatkeeper.dev"),
        "{printed:?}"
    );
    assert!(
        printed.err.contains("The registration of the rehearsal is deleted again"),
        "{printed:?}"
    );
    assert_eq!(registrations(&stage), [] as [Value; 0]);
    assert_eq!(stored(&stage, "orders"), before);
}

#[tokio::test]
async fn an_adoption_that_has_begun_is_not_undone_and_goes_on() {
    let stage = Stage::new("adopt-on").await;
    by_hand(&stage).await;
    // The operator may create no slice, which its dry run does not show.
    stage.apply(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: { name: none }\n\
         spec: { hard: { count/endpointslices.discovery.k8s.io: 1 } }\n",
    );
    eventually("the quota counts the slice", || {
        let quota = items(&stage, "resourcequotas").remove(0);
        match &quota["status"]["used"]["count/endpointslices.discovery.k8s.io"] {
            used if used == "1" => Ok(()),
            _ => Err(quota.to_string()),
        }
    });
    let printed = stage.plugin(&["adopt", "orders", "--yes", "--timeout=30s"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    for text in [
        "error: the operator has not completed the adoption within 30s; it has reported: ",
        "exceeded quota",
        "The operator goes on with the adoption, and what is published stays. Follow it with:\n  kubectl beatkeeper -n ",
        "To have it change nothing further:\n  kubectl -n ",
    ] {
        assert!(printed.err.contains(text), "{text}: {printed:?}");
    }
    assert_eq!(registrations(&stage).len(), 1);
    stage.kubectl(&["delete", "resourcequota", "none"]);
    eventually("only the operator's slices are left", || match managers(&stage) {
        all if all == ["beatkeeper.dev"] => Ok(()),
        all => Err(format!("{all:?}")),
    });
}

#[tokio::test]
async fn an_interrupt_removes_the_rehearsal_while_it_waits_and_while_it_asks() {
    let mut stage = Stage::without_operator("adopt-stop").await;
    by_hand(&stage).await;
    let exists = |stage: &Stage, count: usize| {
        eventually(&format!("there are {count} registrations"), || {
            let all = registrations(stage);
            if all.len() == count { Ok(()) } else { Err(format!("{all:?}")) }
        })
    };
    let mut waiting = spawn(stage.command(&["adopt", "orders", PATIENT]));
    exists(&stage, 1);
    let asked = Instant::now();
    let pid = waiting.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "it does not wait for the operator any more"
    );
    exists(&stage, 0);

    stage.operate(&[]);
    let terminal = Terminal::open(&stage, &["adopt", "orders", PATIENT]);
    terminal.until("it asks", |seen| seen.contains("Go on? [y/N]"));
    assert_eq!(registrations(&stage).len(), 1);
    terminal.press("C-c");
    exists(&stage, 0);
}

#[tokio::test]
async fn a_service_loses_its_selector_only_after_consent_and_keeps_its_pods() {
    let stage = Stage::new("adopt-selector").await;
    stage.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: web }\n\
         spec: { selector: { app: web }, ports: [{ name: http, port: 80, targetPort: 8080 }] }\n",
    );
    for n in [1, 2] {
        stage.pod(&format!("web-{n}"), "web", &format!("10.88.9.{n}"));
    }
    let addresses = |stage: &Stage| {
        let mut all: Vec<String> = items(stage, "endpointslices")
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    eventually("the cluster publishes both", || match addresses(&stage) {
        all if all == ["10.88.9.1", "10.88.9.2"] => Ok(()),
        all => Err(format!("{all:?}")),
    });
    let before = stored(&stage, "web").pop();
    let refused = stage.plugin(&["adopt", "web", PATIENT]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for line in [
        "No address, port or readiness would change.",
        "0 of 2 published addresses beat already.",
        "The selector app=web of Service web will be removed.",
        "To go back afterwards: kubectl -n ",
    ] {
        assert!(refused.out.contains(line), "{line}: {refused:?}");
    }
    assert_eq!(registrations(&stage), [] as [Value; 0]);
    assert_eq!(stored(&stage, "web").pop(), before, "the Service was not written");
    let adopted = stage.plugin(&["adopt", "web", "--yes", PATIENT]);
    assert_eq!(adopted.code, 0, "{adopted:?}");
    let service: Value =
        serde_json::from_str(&stage.read(&["get", "service", "web", "-o", "json"])).unwrap();
    assert_eq!(service["spec"]["selector"], Value::Null);
    eventually("the operator publishes both", || match (managers(&stage), addresses(&stage)) {
        (all, both) if all == ["beatkeeper.dev"] && both == ["10.88.9.1", "10.88.9.2"] => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    // The command that it names goes back.
    let back =
        adopted.out.lines().find_map(|line| line.strip_prefix("To go back afterwards: kubectl "));
    let words: Vec<&str> = back.unwrap().split_whitespace().collect();
    let patch = words.last().unwrap().trim_matches('\'');
    stage.kubectl(&["patch", "service", "web", "--type=merge", "-p", patch]);
    eventually("the cluster publishes again", || match managers(&stage) {
        all if all.len() > 1 => Ok(()),
        all => Err(format!("{all:?}")),
    });
}

#[tokio::test]
async fn a_selector_that_was_removed_comes_back_if_the_operator_stands_still() {
    let mut stage = Stage::new("adopt-back").await;
    stage.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: web }\n\
         spec: { selector: { app: web }, ports: [{ name: http, port: 80, targetPort: 8080 }] }\n",
    );
    stage.pod("web-1", "web", "10.88.9.1");
    let terminal = Terminal::open(&stage, &["adopt", "web", "--timeout=30s"]);
    terminal.until("it asks", |seen| seen.contains("Go on? [y/N]"));
    stage.kill("operator");
    terminal.press("y");
    terminal.press("Enter");
    let service = |stage: &Stage| -> Value {
        serde_json::from_str(&stage.read(&["get", "service", "web", "-o", "json"])).unwrap()
    };
    eventually("the selector is removed", || match service(&stage) {
        it if it["spec"]["selector"].is_null() => Ok(()),
        it => Err(it.to_string()),
    });
    eventually("the selector is back", || match service(&stage) {
        it if it["spec"]["selector"]["app"] == "web" => Ok(()),
        it => Err(it.to_string()),
    });
    assert_eq!(service(&stage)["metadata"]["labels"], Value::Null);
    eventually("the registration is deleted", || match registrations(&stage).len() {
        0 => Ok(()),
        count => Err(count.to_string()),
    });
}
