//! `why` argues from API objects alone.

use crate::stage::Stage;

#[tokio::test]
async fn a_dead_a_cordoned_and_a_refused_instance_are_explained() {
    let mut stage = Stage::new("why").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    stage.agent("vm-3", "203.0.113.3");
    // The operator writes the slices before the status.
    stage.until(&["why", "greeter/vm-1"], "it is ready, and there is nothing to do", |out| {
        out.contains("it gets traffic") && out.ends_with("\n✓ Nothing.\n")
    });
    let refused = stage
        .until(&["why", "greeter/vm-3"], "it is refused", |out| out.contains("AddressRefused"));
    assert!(refused.contains("→ Ask the operator's administrator"), "{refused}");
    stage.kubectl(&["annotate", "lease", "greeter.vm-2", "beatkeeper.dev/cordoned=bad disk"]);
    let cordoned =
        stage.until(&["why", "greeter/vm-2"], "it is cordoned", |out| out.contains("is Cordoned"));
    assert!(cordoned.contains("a person has cordoned it: bad disk"), "{cordoned}");
    stage.kill("vm-1");
    let dead =
        stage.until(&["why", "greeter/vm-1"], "it has expired and an event says so", |out| {
            out.contains("is Expired") && out.contains("InstanceExpired: vm-1")
        });
    assert!(dead.contains("✗ deadline      its ttl of 3s passed"), "{dead}");
    assert!(dead.contains("→ Start it again; its next beat publishes it."), "{dead}");
    assert_eq!(stage.plugin(&["why", "greeter/vm-1"]).code, 1);
}

#[tokio::test]
async fn a_lease_that_lacks_its_label_is_found_and_the_command_that_sets_it_is_named() {
    let stage = Stage::without_operator("label").await;
    stage.register("greeter", "");
    stage.apply("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: { name: greeter.vm-9 }\nspec: { holderIdentity: vm-9 }\n");
    let printed = stage.plugin(&["why", "greeter/vm-9"]);
    assert_eq!(printed.code, 1);
    assert!(printed.err.contains("Lease greeter.vm-9 exists, but its label"), "{printed:?}");
    assert!(
        printed
            .err
            .contains("label --overwrite lease greeter.vm-9 beatkeeper.dev/registration=greeter"),
        "{printed:?}"
    );
    let printed = stage.plugin(&["why", "greeter/vm-8"]);
    assert!(printed.err.contains("It has no instances: nothing beats for it."), "{printed:?}");
}
