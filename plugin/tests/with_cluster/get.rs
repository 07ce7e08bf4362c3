//! `get` shows what is there, and what is wrong.

use serde_json::Value;

use crate::stage::Stage;

/// The line of an instance.
fn line<'a>(tree: &'a str, instance: &str) -> &'a str {
    let mut lines = tree.lines().filter(|line| line.contains("├─ "));
    lines.find(|line| line.split_whitespace().any(|word| word == instance)).unwrap_or_default()
}

#[tokio::test]
async fn a_tree_shows_each_instance_and_what_is_published_and_names_what_is_wrong() {
    let mut stage = Stage::new("get").await;
    stage.register(
        "greeter",
        "  instances: [{ name: db, addresses: [192.0.2.30], zone: zone-b }]\n",
    );
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let tree = stage.until(&["get", "greeter"], "both are ready", |tree| {
        tree.contains("2 of 3 instances ready, 1 waiting")
            && tree.contains("Endpoints greeter: 2 ready")
            && tree.contains("IPv4 grpc 8080: 2 ready")
    });
    assert!(line(&tree, "vm-1").contains("● Ready"), "{tree}");
    assert!(line(&tree, "vm-1").contains("192.0.2.11"), "{tree}");
    assert!(line(&tree, "db").contains("○ Waiting"), "{tree}");
    assert!(line(&tree, "db").contains("never"), "{tree}");
    assert!(line(&tree, "db").contains("zone-b"), "{tree}");
    assert!(tree.contains("Service greeter, ClusterIP"), "{tree}");
    assert!(!tree.contains('\u{1b}'), "no colours, as this is no terminal: {tree}");
    stage.kill("vm-2");
    let tree =
        stage.until(&["get", "greeter"], "vm-2 has expired", |tree| tree.contains("1 expired"));
    assert!(line(&tree, "vm-2").contains("✗ Expired"), "{tree}");
    assert!(line(&tree, "vm-2").contains("[██████████]"), "{tree}");
    assert!(tree.contains("✗ vm-2 has expired (TTLPassed)"), "{tree}");
    assert!(tree.contains("→ Start it again; its next beat publishes it."), "{tree}");
    let names = stage.plugin(&["get", "-o", "name"]);
    assert_eq!(names.out, "serviceregistration.beatkeeper.dev/greeter\n");
}

#[tokio::test]
async fn all_instances_are_read_and_not_only_the_hundred_of_the_status() {
    let stage = Stage::new("many").await;
    stage.register("greeter", "");
    let lease = |n: usize| {
        format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: greeter.vm-{n}\n  \
             labels: {{ beatkeeper.dev/registration: greeter }}\n  \
             annotations: {{ beatkeeper.dev/addresses: 198.18.0.{n} }}\n\
             spec: {{ holderIdentity: vm-{n}, renewTime: \"2026-01-01T00:00:00.000000Z\" }}\n---\n"
        )
    };
    // An operator that has seen the registration takes new Leases for beats; these are from a copy, and wait.
    stage.apply(&(1..=130).map(lease).collect::<String>());
    let by = |report: &Value, who: &str| {
        let all = report["instances"].as_array().into_iter().flatten();
        all.filter(|it| it["judgedBy"] == who).count()
    };
    // The operator may write a status before it has seen all Leases.
    let json = stage.until(&["get", "greeter", "-o", "json"], "the status is full", |json| {
        let report: Value = serde_json::from_str(json).unwrap_or_default();
        report["instances"].as_array().is_some_and(|all| all.len() == 130)
            && report["conditions"].as_array().is_some_and(|all| !all.is_empty())
            && by(&report, "operator") >= 100
    });
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(by(&report, "operator"), 100);
    assert_eq!(by(&report, "plugin"), 30);
    assert_eq!(report["name"], "greeter");
}

#[tokio::test]
async fn a_registration_that_no_operator_sees_is_told_so() {
    let stage = Stage::without_operator("alone").await;
    stage.register("greeter", "");
    let tree = stage.plugin(&["get"]).out;
    assert!(tree.contains("✗ no operator has reported on this registration yet"), "{tree}");
}

#[tokio::test]
async fn an_operator_that_stands_still_is_noticed_by_the_dead_instances_that_it_leaves() {
    let mut stage = Stage::new("still").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 1 instance ready"));
    stage.kill("operator");
    stage.kill("vm-1");
    let tree = stage.until(&["get"], "it should have been pruned", |tree| {
        tree.contains("no operator has pruned it")
    });
    assert!(
        tree.contains("✗ vm-1 is still published, and silent for longer than the ttl of 3s"),
        "{tree}"
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_answered_with_those_that_do() {
    let stage = Stage::without_operator("names").await;
    let printed = stage.plugin(&["get", "greter"]);
    assert_eq!(printed.code, 1);
    assert!(printed.err.contains("it has none"), "{printed:?}");
    stage.register("greeter", "");
    let printed = stage.plugin(&["get", "greter"]);
    assert_eq!(printed.code, 1);
    assert_eq!(
        printed.err,
        format!(
            "error: there is no ServiceRegistration greter in namespace {}\nIt has: greeter\n",
            stage.namespace
        )
    );
    let all = stage.plugin(&["get"]);
    assert_eq!(all.code, 0, "{all:?}");
}
