//! `cordon`, `uncordon` and `drain` while the chart's admission policy is in force, by users with different rights.

use beatkeeper_cluster::{ControlPlane, Options};
use serde_json::Value;

use crate::{
    installed::Installed,
    stage::{Printed, Stage, eventually},
};

const PAGE: &str = include_str!("../../../docs/kubectl.md");

/// The role of this name on the page about the plugin.
fn role_of_the_page(name: &str) -> String {
    let mut blocks = PAGE.split("```yaml\n").filter_map(|rest| rest.split_once("```"));
    let named = format!("metadata: {{ name: {name} }}");
    blocks.find(|(block, _)| block.contains(&named)).unwrap().0.to_owned()
}

/// Lets a user act with these ClusterRoles in the namespace of the stage, and waits until the user can read it.
fn let_act(stage: &Stage, user: &str, roles: &[&str]) {
    for role in roles {
        stage.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{ name: {user}-{role} }}\n\
             roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role} }}\n\
             subjects: [{{ apiGroup: rbac.authorization.k8s.io, kind: User, name: {user} }}]\n"
        ));
    }
    let can_read = |tree: &str| tree.contains("Ready     vm-1");
    stage.until(&["get", "greeter", "--as", user], "the roles apply", can_read);
}

/// Runs a command as a user.
fn act(stage: &Stage, user: &str, words: &[&str]) -> Printed {
    stage.plugin(&[words, &["--as", user]].concat())
}

/// Runs a command as a user who may do it.
fn may(stage: &Stage, user: &str, words: &[&str]) -> Printed {
    let printed = act(stage, user, words);
    assert_eq!(printed.code, 0, "{user} {words:?}: {printed:?}");
    printed
}

/// Runs a command that the admission policy refuses. The user is told why, by the policy, and what is needed.
fn may_not(stage: &Stage, user: &str, words: &[&str], why: &str, needed: &str) {
    let before = marks(stage);
    let printed = act(stage, user, words);
    assert_eq!(printed.code, 1, "{user} {words:?}: {printed:?}");
    assert!(printed.err.contains("ValidatingAdmissionPolicy"), "{user} {words:?}: {printed:?}");
    assert!(printed.err.contains(why), "{user} {words:?}: {printed:?}");
    assert!(printed.err.contains(needed), "{user} {words:?}: {printed:?}");
    assert!(printed.err.ends_with("docs/kubectl.md has a role with that.\n"), "{printed:?}");
    assert_eq!(marks(stage), before, "{user} {words:?}");
    println!("{user} {words:?}:\n{}", printed.err);
}

/// Everything that the commands write.
fn marks(stage: &Stage) -> Vec<(String, Value)> {
    let read = |what: &str| -> Value {
        serde_json::from_str(&stage.read(&["get", what, "-o", "json"])).unwrap()
    };
    let leases = read("leases,sreg")["items"].take();
    let all = leases.as_array().unwrap().iter().map(|it| {
        let annotations = it["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let marks = annotations.into_iter().filter(|(name, _)| {
            ["cordoned", "health", "note", "uncordon"].iter().any(|it| name.ends_with(it))
        });
        (it["metadata"]["name"].as_str().unwrap().to_owned(), marks.collect())
    });
    all.collect()
}

const CORDON: [&str; 4] = ["cordon", "greeter/vm-1", "--reason", "bad disk"];
const UNCORDON: [&str; 2] = ["uncordon", "greeter/vm-1"];
const DRAIN: [&str; 4] = ["drain", "greeter/vm-1", "--reason", "new kernel"];

#[tokio::test(flavor = "multi_thread")]
async fn with_the_admission_policy_those_with_the_right_act_and_others_are_told_what_they_need() {
    let plane = ControlPlane::start_for_this_thread(Options::default()).await.unwrap();
    let mut it = Installed::on(plane);
    it.stage.register("greeter", "");
    it.stage.agent("vm-1", "192.0.2.11");
    it.stage.agent("vm-2", "192.0.2.12");
    it.stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
    for role in ["beatkeeper-viewer", "beatkeeper-cordoner"] {
        it.stage.apply(&role_of_the_page(role));
    }
    // `edit` may write Leases and registrations. That is not enough, or each editor could publish what it likes.
    let_act(&it.stage, "editor", &["edit"]);
    let_act(&it.stage, "gateway", &["beatkeeper-viewer", "beatkeeper-register"]);
    let_act(&it.stage, "ann", &["beatkeeper-viewer", "beatkeeper-cordoner"]);
    let_act(&it.stage, "boss", &["admin"]);
    eventually("the policy is in force", || {
        let printed = act(&it.stage, "editor", &[&CORDON[..], &["--dry-run=server"]].concat());
        if printed.code == 1 { Ok(()) } else { Err(format!("{printed:?}")) }
    });

    those_without_the_right_change_nothing(&it.stage);
    those_with_the_right_cordon_and_lift(&it.stage);
    a_drain_begins_and_ends(&it.stage);
    a_cordon_whose_lease_is_gone_is_lifted_by_those_with_the_right(&mut it.stage);
}

fn those_without_the_right_change_nothing(stage: &Stage) {
    let needs = "to cordon or drain it you need the permission \"cordon\"";
    let right = "`cordon` for serviceregistrations.beatkeeper.dev";
    may_not(stage, "editor", &CORDON, needs, right);
    may_not(stage, "editor", &[&CORDON[..], &["--dry-run=server"]].concat(), needs, right);
    may_not(stage, "editor", &DRAIN, needs, right);
}

fn those_with_the_right_cordon_and_lift(stage: &Stage) {
    let is_cordoned = |tree: &str| tree.contains("⊘ Cordoned  vm-1");
    for user in ["ann", "boss", "gateway"] {
        may(stage, user, &[&CORDON[..], &["--dry-run=server"]].concat());
        may(stage, user, &CORDON);
        stage.until(&["get"], "the operator follows", is_cordoned);
        let cordoned =
            "Lease greeter.vm-1 is cordoned: bad disk. Only users with the permission \"cordon\"";
        let needs = "to cordon or drain it you need the permission \"cordon\"";
        let right = "`cordon` for serviceregistrations.beatkeeper.dev";
        may_not(stage, "editor", &UNCORDON, needs, right);
        // What beats for an instance may remove it, and only a person with the right publishes it again.
        may_not(stage, "gateway", &UNCORDON, cordoned, right);
        let other = if user == "boss" { "boss" } else { "ann" };
        may(stage, other, &UNCORDON);
        stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
    }
}

fn a_drain_begins_and_ends(stage: &Stage) {
    for user in ["ann", "boss", "gateway"] {
        let drained = may(stage, user, &DRAIN);
        stage.until(&["get"], "the operator follows", |tree| tree.contains("▽ Draining  vm-1"));
        let mut end = drained.err.lines().filter_map(|it| it.strip_prefix("To end that: kubectl "));
        let words: Vec<&str> =
            end.next().unwrap().split_whitespace().chain(["--as", user]).collect();
        stage.kubectl(&words);
        stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
    }
}

fn a_cordon_whose_lease_is_gone_is_lifted_by_those_with_the_right(stage: &mut Stage) {
    may(stage, "ann", &CORDON);
    eventually("the operator has recorded the cordon", || {
        let status = stage.read(&["get", "sreg", "greeter", "-o", "jsonpath={.status.cordoned}"]);
        if status.contains("bad disk") { Ok(()) } else { Err(status) }
    });
    stage.kill("vm-1");
    stage.kubectl(&["delete", "lease", "greeter.vm-1"]);
    let lifts = "lifts cordons: only users with the permission \"cordon\"";
    may_not(stage, "editor", &UNCORDON, lifts, "admission policy also `cordon`");
    let lifted = may(stage, "ann", &UNCORDON);
    assert_eq!(lifted.out, "instance greeter/vm-1 uncordoned\n");
}
