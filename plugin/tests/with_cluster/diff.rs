//! `diff` says before the end of a dry run what is published after it.

use serde_json::Value;

use crate::stage::{Stage, eventually};

/// The addresses, ports and readiness in all slices of a Service.
fn published(stage: &Stage) -> Vec<String> {
    let words = ["get", "endpointslices", "-l", "kubernetes.io/service-name=greeter", "-o", "json"];
    let slices: Value = serde_json::from_str(&stage.read(&words)).unwrap();
    let mut rows = Vec::new();
    for slice in slices["items"].as_array().unwrap() {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let ready = endpoint["conditions"]["ready"] == true;
            rows.push(format!(
                "{} {} {}/TCP {}",
                endpoint["addresses"][0].as_str().unwrap(),
                slice["ports"][0]["name"].as_str().unwrap(),
                slice["ports"][0]["port"],
                if ready { "ready" } else { "not ready" },
            ));
        }
    }
    rows.sort();
    rows
}

/// Waits until these rows are published. What was mirrored from Endpoints goes a moment after them.
fn until_published(stage: &Stage, wanted: &[&str]) {
    eventually("that is published", || match published(stage) {
        rows if rows == wanted => Ok(()),
        rows => Err(format!("{rows:?}")),
    });
}

/// The rows of slices that a difference says would be there.
fn planned(text: &str) -> Vec<String> {
    let slices = text.split("--- published/Endpoints/").next().unwrap();
    let rows =
        slices.lines().filter(|line| line.starts_with([' ', '+']) && !line.starts_with("+++"));
    rows.map(|line| line[1..].split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn what_is_published_after_a_dry_run_is_what_the_difference_said() {
    let mut stage = Stage::new("diff").await;
    stage.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: greeter }\n\
         spec: { ports: [{ name: grpc, port: 80, targetPort: 8080 }] }\n---\n\
         apiVersion: v1\nkind: Endpoints\nmetadata: { name: greeter }\nsubsets:\n\
         - addresses: [{ ip: 192.0.2.21 }]\n  notReadyAddresses: [{ ip: 192.0.2.22 }]\n  \
           ports: [{ name: grpc, port: 9001 }]\n",
    );
    eventually("the Endpoints are mirrored", || match published(&stage).len() {
        2 => Ok(()),
        count => Err(count.to_string()),
    });
    let absent = stage.plugin(&["diff", "greeter"]);
    assert_eq!(absent.code, 2, "{absent:?}");
    assert!(absent.err.contains("there is no ServiceRegistration greeter"), "{absent:?}");
    rehearse(&stage);
    // What is taken over is published afterwards as before.
    stage.until(&["diff", "greeter", "-o", "json"], "nothing would change in the slices", |json| {
        let report: Value = serde_json::from_str(json).unwrap_or_default();
        report["status"] == "DryRun" && report["differs"] == false
    });
    assert_eq!(stage.plugin(&["diff", "greeter"]).code, 0);
    stage.agent("vm-1", "192.0.2.11");
    let text = stage
        .until(&["diff", "greeter"], "vm-1 would be added", |text| text.contains("+192.0.2.11"));
    let differs = stage.plugin(&["diff", "greeter", "-o", "short"]);
    assert_eq!(
        (differs.code, differs.out),
        (
            1,
            format!(
                "EndpointSlice of Service {0}/greeter: 1 added\nEndpoints of Service {0}/greeter: 1 added\n",
                stage.namespace
            )
        )
    );
    let wanted = [
        "192.0.2.11 grpc 8080/TCP ready",
        "192.0.2.21 grpc 9001/TCP ready",
        "192.0.2.22 grpc 9001/TCP not ready",
    ];
    assert_eq!(planned(&text), wanted, "{text}");
    stage.kubectl(&["annotate", "sreg", "greeter", "beatkeeper.dev/dry-run-"]);
    until_published(&stage, &wanted);
    eventually("nothing is left to change", || match stage.plugin(&["diff", "greeter"]) {
        printed if printed.code == 0 && printed.out.is_empty() => Ok(()),
        printed => Err(format!("{printed:?}")),
    });
}

/// What kubectl finds of the Endpoints greeter: their name, or nothing.
fn endpoints(stage: &Stage) -> String {
    stage.read(&["get", "endpoints", "greeter", "--ignore-not-found", "-o", "name"])
}

/// Creates a registration greeter in a dry run, which adopts what it finds.
fn rehearse(stage: &Stage) {
    stage.apply(
        "apiVersion: beatkeeper.dev/v1alpha1\nkind: ServiceRegistration\nmetadata:\n  name: greeter\n  \
         annotations: { beatkeeper.dev/adopt: \"true\", beatkeeper.dev/dry-run: \"true\" }\nspec:\n  \
         ttl: 3s\n  interval: 1s\n  ports: [{ name: grpc, port: 80, targetPort: 8080 }]\n",
    );
}

/// Ends the dry run, and waits until nothing is left to change.
fn publish(stage: &Stage) {
    stage.kubectl(&["annotate", "sreg", "greeter", "beatkeeper.dev/dry-run-"]);
    eventually("nothing is left to change", || match stage.plugin(&["diff", "greeter"]) {
        printed if printed.code == 0 && printed.err.contains("status Published") => Ok(()),
        printed => Err(format!("{printed:?}")),
    });
}

#[tokio::test]
async fn of_an_operator_that_writes_no_endpoints_a_dry_run_shows_none_and_none_follow() {
    let mut stage = Stage::without_operator("diff-slices").await;
    stage.operate(&["--publish-endpoints=false"]);
    rehearse(&stage);
    stage.agent("vm-1", "192.0.2.11");
    let of_slices = format!("EndpointSlice of Service {}/greeter: 1 added\n", stage.namespace);
    stage.until(&["diff", "greeter", "-o", "short"], "vm-1 would be added", |text| {
        text.contains(&of_slices)
    });
    let printed = stage.plugin(&["diff", "greeter"]);
    assert!(printed.err.contains("no Endpoints are written"), "{printed:?}");
    assert!(!printed.err.contains("no object tells"), "{printed:?}");
    assert!(!printed.out.contains("/Endpoints/"), "{printed:?}");
    publish(&stage);
    until_published(&stage, &["192.0.2.11 grpc 8080/TCP ready"]);
    assert_eq!(endpoints(&stage), "");
}

#[tokio::test]
async fn of_an_operator_that_writes_no_endpoints_a_dry_run_shows_that_those_it_takes_over_are_removed()
 {
    let mut stage = Stage::without_operator("diff-removes").await;
    stage.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: greeter }\n\
         spec: { ports: [{ name: grpc, port: 80, targetPort: 8080 }] }\n---\n\
         apiVersion: v1\nkind: Endpoints\nmetadata: { name: greeter }\nsubsets:\n\
         - addresses: [{ ip: 192.0.2.21 }]\n  ports: [{ name: grpc, port: 9001 }]\n",
    );
    eventually("the Endpoints are mirrored", || match published(&stage).len() {
        1 => Ok(()),
        count => Err(count.to_string()),
    });
    stage.operate(&["--publish-endpoints=false"]);
    rehearse(&stage);
    let removed = format!("Endpoints of Service {}/greeter: 1 removed\n", stage.namespace);
    stage.until(&["diff", "greeter", "-o", "short"], "they would be removed", |text| {
        text == removed
    });
    publish(&stage);
    until_published(&stage, &["192.0.2.21 grpc 9001/TCP ready"]);
    assert_eq!(endpoints(&stage), "");
}

#[tokio::test]
async fn a_registration_that_no_operator_sees_cannot_be_compared() {
    let stage = Stage::without_operator("diff-alone").await;
    stage.register("greeter", "");
    let printed = stage.plugin(&["diff", "greeter"]);
    assert_eq!(
        (printed.code, printed.err),
        (
            2,
            format!(
                "error: no operator has reported on ServiceRegistration greeter as it is now, so what it would publish \
                 is not known\nSee that the operator runs, and that namespace {} is one of those it watches.\n",
                stage.namespace
            )
        )
    );
}
