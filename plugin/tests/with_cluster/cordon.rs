//! `cordon` and `uncordon`, with an operator that follows them.

use serde_json::Value;

use crate::{
    stage::{ANN, Stage, eventually},
    terminal::Terminal,
};

/// Two instances that serve.
async fn two(prefix: &str) -> Stage {
    let mut stage = Stage::new(prefix).await;
    stage.register("greeter", "  protection: { minReady: 1 }\n");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
    stage
}

/// Waits until the operator has recorded the cordon, so that it lasts without the Lease.
fn until_recorded(stage: &Stage) {
    eventually("the operator has recorded the cordon", || {
        let status = stage.read(&["get", "sreg", "greeter", "-o", "jsonpath={.status.cordoned}"]);
        if status.contains("bad disk") { Ok(()) } else { Err(status) }
    });
}

const CORDON: [&str; 4] = ["cordon", "greeter/vm-1", "--reason", "bad disk"];

#[tokio::test]
async fn a_cordon_says_who_is_left_and_lasts_until_it_is_lifted_although_the_lease_goes() {
    let mut stage = two("cordon").await;
    for (flag, suffix) in [("--dry-run=server", "server dry run"), ("--dry-run=client", "dry run")]
    {
        let tried = stage.plugin(&[&CORDON[..], &[flag]].concat());
        assert_eq!(
            (tried.code, tried.out),
            (
                0,
                format!(
                    "It is Ready (Beating) and gets new connections.\n1 of 2 ready instances is left: vm-2.\n\
                     instance greeter/vm-1 cordoned ({suffix})\n"
                )
            )
        );
        assert_eq!(stage.annotations("greeter.vm-1")["beatkeeper.dev/cordoned"], Value::Null);
    }
    let cordoned = stage.plugin(&CORDON);
    assert_eq!(cordoned.code, 0, "{cordoned:?}");
    assert!(cordoned.out.ends_with("instance greeter/vm-1 cordoned\n"), "{cordoned:?}");
    stage.until(&["get"], "the operator follows", |tree| tree.contains("⊘ Cordoned  vm-1"));
    let why = stage.plugin(&["why", "greeter/vm-1"]);
    assert!(why.out.contains("a person has cordoned it: bad disk"), "{why:?}");
    let again = stage.plugin(&CORDON);
    assert_eq!(again.code, 1);
    assert!(
        again.err.starts_with("error: greeter/vm-1 is cordoned already: bad disk\n"),
        "{again:?}"
    );
    until_recorded(&stage);
    stage.kill("vm-1");
    stage.kubectl(&["delete", "lease", "greeter.vm-1"]);
    let lifted = stage.plugin(&["uncordon", "greeter/vm-1"]);
    assert_eq!(
        (lifted.code, &*lifted.out),
        (0, "instance greeter/vm-1 uncordoned\n"),
        "{lifted:?}"
    );
    assert!(lifted.err.contains("The operator is asked to lift the cordon"), "{lifted:?}");
    let registration = stage.read(&["get", "sreg", "greeter", "-o", "json"]);
    assert!(!registration.contains("beatkeeper.dev/uncordon"), "{registration}");
    assert!(!registration.contains("bad disk"), "{registration}");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
}

#[tokio::test]
async fn a_cordon_that_leaves_too_few_needs_consent() {
    let stage = two("consent").await;
    assert_eq!(stage.plugin(&["cordon", "greeter/vm-2"]).code, 0);
    stage.until(&["get"], "one is cordoned", |tree| tree.contains("1 of 2 instances ready"));
    let refused = stage.plugin(&CORDON);
    assert_eq!(refused.code, 1);
    assert!(
        refused.out.contains("No ready instance is left: Service greeter gives no answer."),
        "{refused:?}"
    );
    assert_eq!(
        refused.err,
        "error: nothing was changed: too few instances would be left\n\
         Start others first, or add --yes to do it all the same.\n"
    );
    assert_eq!(stage.annotations("greeter.vm-1")["beatkeeper.dev/cordoned"], Value::Null);
    let tried = stage.plugin(&[&CORDON[..], &["--dry-run=server"]].concat());
    assert_eq!(tried.code, 0, "a dry run needs no consent: {tried:?}");
    {
        let terminal = Terminal::open(&stage, &CORDON[..2]);
        terminal.until("it asks", |seen| seen.contains("Go on? [y/N]"));
        terminal.press("n");
        terminal.press("Enter");
        terminal.until("it has ended", |seen| !seen.contains("Go on?"));
        assert_eq!(stage.annotations("greeter.vm-1")["beatkeeper.dev/cordoned"], Value::Null);
    }
    let terminal = Terminal::open(&stage, &CORDON[..2]);
    terminal.until("it asks", |seen| seen.contains("Go on? [y/N]"));
    terminal.press("y");
    terminal.press("Enter");
    stage.until(&["get"], "it is cordoned", |tree| tree.contains("⊘ Cordoned  vm-1"));
    assert_eq!(stage.plugin(&["uncordon", "greeter/vm-1"]).code, 0);
    stage.until(&["get"], "it is back", |tree| tree.contains("1 of 2 instances ready"));
    let done = stage.plugin(&[&CORDON[..], &["--yes"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    stage.until(&["get"], "none is ready", |tree| tree.contains("0 of 2 instances ready"));
}

#[tokio::test]
async fn what_cannot_be_cordoned_or_uncordoned_is_told_with_what_can() {
    let mut stage = Stage::new("not-cordoned").await;
    stage.register("greeter", "  instances: [{ name: db, addresses: [192.0.2.30] }]\n");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 2 instances ready"));
    let err = |words: &[&str]| {
        let printed = stage.plugin(words);
        assert_eq!(printed.code, 1, "{printed:?}");
        printed.err
    };
    let waiting = err(&["cordon", "greeter/db"]);
    assert!(
        waiting.contains("greeter/db has no Lease, and a cordon is an annotation of the Lease"),
        "{waiting}"
    );
    assert!(waiting.contains("remove db from spec.instances"), "{waiting}");
    assert_eq!(
        err(&["uncordon", "greeter/vm-1"]),
        "error: greeter/vm-1 is not cordoned\nNo instance of greeter is.\n"
    );
    let unknown = err(&["cordon", "greeter/vm-7"]);
    assert!(unknown.contains("It has: db and vm-1"), "{unknown}");
    assert!(err(&["uncordon", "greeter/vm-7"]).contains("It has: db and vm-1"));
}

#[tokio::test]
async fn a_cordon_without_a_lease_that_no_operator_lifts_is_told_with_the_way_back() {
    let mut stage = two("not-lifted").await;
    assert_eq!(stage.plugin(&CORDON).code, 0);
    until_recorded(&stage);
    stage.kill("operator");
    stage.kill("vm-1");
    stage.kubectl(&["delete", "lease", "greeter.vm-1"]);
    let vain = stage.plugin(&["uncordon", "greeter/vm-1"]);
    assert_eq!(vain.code, 1, "{vain:?}");
    assert!(vain.err.contains("no operator has lifted the cordon of greeter/vm-1"), "{vain:?}");
    // The command that it names takes the request back.
    let undo = vain.err.lines().find_map(|line| line.split_once("kubectl ")).unwrap().1;
    stage.kubectl(&undo.split_whitespace().collect::<Vec<_>>());
    let registration = stage.read(&["get", "sreg", "greeter", "-o", "json"]);
    assert!(!registration.contains("beatkeeper.dev/uncordon"), "{registration}");
}

#[tokio::test]
async fn a_user_who_may_not_write_leases_is_told_the_right() {
    let stage = two("cordon-right").await;
    stage.grant(
        ANN,
        &[
            "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list] }",
            "{ apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list] }",
            "{ apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list] }",
        ],
    );
    stage.until(&["get", "--as", "ann"], "the role applies", |tree| tree.contains("2 of 2"));
    let printed = stage.plugin(&["cordon", "greeter/vm-1", "--as", "ann"]);
    assert_eq!(printed.code, 1);
    let namespace = &stage.namespace;
    assert!(
        printed.err.contains(&format!(
            "This needs patch for leases.coordination.k8s.io in namespace {namespace}"
        )),
        "{printed:?}"
    );
}
