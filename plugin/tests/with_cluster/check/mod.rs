//! `check` on a control plane with the chart: each check fails alone when its thing is broken.

mod gateways;

use std::collections::BTreeSet;

use beatkeeper_cluster::{ControlPlane, Options};
use kubectl_beatkeeper::check::rights;
use serde_json::{Value, json};

use crate::{
    installed::{Installed, failed, with},
    stage::{Stage, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn each_check_fails_alone_when_its_thing_is_broken() {
    let plane = ControlPlane::start_for_this_thread(Options::default()).await.unwrap();
    before_an_installation(plane);
    let mut it = Installed::on(plane);
    it.all_is_fine();
    a_second_installation_is_noticed(&it.stage);
    the_rights_that_are_asked_are_those_of_the_chart(&it.stage);
    the_chart(&it);
    the_registrations(&it);
    the_store(&it);
    a_workload(&it.stage);
    what_may_not_be_read_is_unknown(&it.stage).await;
    it.stage.kubectl(&["delete", "crd", "serviceregistrations.beatkeeper.dev"]);
    it.fails("crd");
    it.repair();
    it.all_is_fine();
    gateways::each_check_fails_alone(&mut it);
    // Last, since nothing repairs it.
    the_operator(&mut it);
}

fn before_an_installation(plane: &'static ControlPlane) {
    let stage = Stage::on(plane, "default");
    let printed = stage.plugin(&["check", "--pre"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert_eq!(printed.out.matches('✓').count(), 4, "{printed:?}");
    let (code, checks) = with(&stage, &["--pre", "--as", "ann"]);
    assert_eq!((code, failed(&checks)), (1, vec!["install-rights".to_owned()]));
}

fn a_second_installation_is_noticed(stage: &Stage) {
    let (code, checks) = with(stage, &["--pre"]);
    assert_eq!((code, failed(&checks)), (1, vec!["no-other".to_owned()]));
}

/// The rules of a role, as `verb group/resource`, without what only OpenShift asks for.
fn granted(stage: &Stage, role: &str) -> BTreeSet<String> {
    let role = stage.read(&["get", role, "-o", "json"]);
    let role: Value = serde_json::from_str(&role).unwrap();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let all = rule[field].as_array().into_iter().flatten();
        all.filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                let verbs = texts(rule, "verbs").into_iter();
                rights.extend(verbs.map(|verb| format!("{verb} {group}/{resource}")));
            }
        }
    }
    rights.retain(|right| !right.ends_with("/restricted"));
    rights
}

fn the_rights_that_are_asked_are_those_of_the_chart(stage: &Stage) {
    let asked = rights::WATCHED.iter().flat_map(|(group, resource, verbs)| {
        verbs.iter().map(move |verb| format!("{verb} {group}/{resource}"))
    });
    let mut asked: BTreeSet<String> = asked.collect();
    asked.extend(["list /nodes".to_owned(), "watch /nodes".to_owned()]);
    assert_eq!(asked, granted(stage, "clusterrole/beatkeeper-operator"));
}

/// What a check says.
fn told_of(checks: &[Value], name: &str) -> String {
    checks.iter().find(|it| it["name"] == name).unwrap().to_string()
}

fn the_chart(it: &Installed) {
    let crd = "crd/serviceregistrations.beatkeeper.dev";
    let schema = "/spec/versions/0/schema/openAPIV3Schema/description";
    it.replace(crd, schema, json!("another one"));
    it.fails("crd-current");
    it.repair();
    it.stage.kubectl(&["label", "--overwrite", crd, "app.kubernetes.io/version=0.0.9"]);
    it.fails("versions");
    it.repair();
    let binding = "clusterrolebinding/beatkeeper-operator";
    it.replace(binding, "/subjects/0/name", json!("nobody"));
    it.fails("operator-rights");
    it.repair();
    let binding = "validatingadmissionpolicybinding/beatkeeper-heartbeats";
    it.replace(binding, "/spec/validationActions", json!(["Audit"]));
    it.fails("admission-policy");
    it.stage.kubectl(&["delete", "validatingadmissionpolicybinding", "beatkeeper-cordons"]);
    it.fails("admission-policy");
    it.repair();
    it.stage.kubectl(&["delete", "flowschema", "beatkeeper-heartbeats"]);
    it.fails("flow-control");
    it.repair();
    explanations(it);
    it.one_pod_is_ready("False");
    it.fails("replicas");
    it.one_pod_is_ready("True");
    it.all_is_fine();
}

fn explanations(it: &Installed) {
    it.stage.kubectl(&["delete", "serviceaccount", "beatkeeper-explain"]);
    it.fails("explain");
    it.repair();
    let binding = "clusterrolebinding/beatkeeper-explain";
    it.replace(binding, "/subjects/0/name", json!("nobody"));
    it.fails("explain");
    let (_, checks) = it.told(&[]);
    let told = told_of(&checks, "explain");
    assert!(told.contains("it refuses (403): "), "{told}");
    it.repair();
    // Without the address, it is kubectl that reaches no Pod.
    let (code, checks) = with(&it.stage, &[]);
    assert_eq!((code, failed(&checks)), (1, vec!["explain".to_owned()]));
    it.all_is_fine();
}

fn the_store(it: &Installed) {
    let (code, checks) = it.told(&["--etcd-quota", "1Ki"]);
    assert_eq!((code, failed(&checks)), (1, vec!["store".to_owned()]));
    let told = told_of(&checks, "store");
    assert!(told.contains(", and may have 1.0 KiB"), "{told}");
    let (code, checks) = it.told(&["--etcd-quota", "8Gi"]);
    let told = told_of(&checks, "store");
    assert!(code == 0 && told.contains(", and may have 8.0 GiB"), "{told}");
}

fn the_registrations(it: &Installed) {
    it.stage.register("greeter", "");
    it.stage.register("welcome", "  serviceName: greeter\n");
    it.fails("registrations");
    it.stage.kubectl(&["delete", "sreg", "welcome"]);
    it.all_is_fine();
    it.stage.register("far", "  instances: [{ name: vm, addresses: [198.51.100.7] }]\n");
    it.fails("outside-ranges");
    it.stage.kubectl(&["delete", "sreg", "far"]);
    it.stage.declare("busy", "1s", "100ms");
    let lease = |n: usize| {
        format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: busy.vm-{n}\n  \
             labels: {{ beatkeeper.dev/registration: busy }}\nspec: {{ holderIdentity: vm-{n} }}\n---\n"
        )
    };
    it.stage.apply(&(0..=100).map(lease).collect::<String>());
    eventually("the beats are counted", || {
        let (code, checks) = it.told(&[]);
        let outcome = |it: &&Value| it["name"] == "beats" && it["outcome"] == "warning";
        let is_told = code == 0 && checks.iter().any(|it| outcome(&it));
        if is_told { Ok(()) } else { Err(format!("{checks:?}")) }
    });
    it.stage.kubectl(&["delete", "sreg", "busy"]);
    it.stage.kubectl(&["delete", "lease", "-l", "beatkeeper.dev/registration=busy"]);
    it.all_is_fine();
}

fn a_workload(stage: &Stage) {
    let user = "system:serviceaccount:beatkeeper:greeter";
    let (code, checks) = with(stage, &["--as", user]);
    assert_eq!((code, failed(&checks)), (1, vec!["workload-rights".to_owned()]));
    stage.apply(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: { name: greeter }\n\
         roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: beatkeeper-heartbeat }\n\
         subjects: [{ kind: ServiceAccount, name: greeter, namespace: beatkeeper }]\n",
    );
    eventually("the role applies", || match with(stage, &["--as", user]) {
        (0, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

async fn what_may_not_be_read_is_unknown(stage: &Stage) {
    let token = stage.plane.token("beatkeeper", "default", None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, stage.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
    let (code, checks) = with(stage, &["--kubeconfig", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{checks:?}");
    assert!(checks.iter().all(|it| it["outcome"] == "unknown"), "{checks:#?}");
    let told = checks[0]["detail"].as_str().unwrap();
    assert!(told.contains("cannot get resource \"customresourcedefinitions\""), "{told}");
}

fn the_operator(it: &mut Installed) {
    it.stage.kill("operator");
    it.fails("leader");
    it.a_ghost_leads();
    // What the ghost's Lease tells leads to the operator that has ended.
    it.all_fail(&["path", "explain"]);
    it.stage.kubectl(&["delete", "deployment", "beatkeeper"]);
    it.fails("operator");
    let printed = it.stage.plugin(&["check", "-o", "short"]);
    assert!(
        printed.out.starts_with(
            "✗ the operator is installed: there is no Deployment of it\n  → Install the chart"
        ),
        "{printed:?}"
    );
    assert!(printed.out.contains("/docs/checks.md#operator\n"), "{printed:?}");
    let begun = std::time::Instant::now();
    let printed = it.stage.plugin(&["check", "--wait", "2s"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(begun.elapsed().as_secs() >= 2);
}
