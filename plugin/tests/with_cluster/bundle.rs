//! The support bundle: what it holds, and what it never holds.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tar::Archive;

use crate::stage::{ANN, Printed, Stage, eventually};

/// What is planted where no bundle may show it.
const PLANTED: &str = "s3cr3t-planted-token";

/// The files of a bundle, without the folder that all are in.
fn files(bundle: &Path) -> BTreeMap<String, String> {
    let mut archive = Archive::new(GzDecoder::new(fs::File::open(bundle).unwrap()));
    let read = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let (folder, name) = path.split_once('/').unwrap();
        assert!(folder.starts_with("beatkeeper-support-20"), "{path}");
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name.to_owned(), text)
    });
    let all: Vec<_> = read.collect();
    let files: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(files.len(), all.len(), "each file is there once");
    files
}

fn bundle(stage: &Stage, words: &[&str]) -> (tempfile::TempDir, PathBuf, Printed) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle.tar.gz");
    let flag = format!("--output={}", to.display());
    let printed = stage.plugin(&[&["support-bundle", &flag], words].concat());
    (folder, to, printed)
}

/// A Pod and a Deployment as the chart labels them, and secrets in every place that users have for them.
fn plant(stage: &Stage) {
    let container = format!(
        "{{ name: controller, image: app, args: [--registry], env: [{{ name: TOKEN, value: {PLANTED} }}] }}"
    );
    let pod = |name: &str, labels: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {labels}\n  \
             annotations: {{ example.com/token: {PLANTED} }}\nspec: {{ containers: [{container}] }}\n---\n"
        )
    };
    let operator = "{ beatkeeper.dev/operator: beatkeeper }";
    let template =
        format!("{{ metadata: {{ labels: {operator} }}, spec: {{ containers: [{container}] }} }}");
    let objects = [
        pod("greeter-1", "{ app: greeter }"),
        pod("other-1", "{ app: other }"),
        pod("beatkeeper-1", operator),
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: beatkeeper }}\nspec:\n  replicas: 0\n  \
             selector: {{ matchLabels: {operator} }}\n  template: {template}\n---\n"
        ),
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: hidden }}\nstringData: {{ token: {PLANTED} }}\n---\n"
        ),
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: settings }}\ndata: {{ token: {PLANTED} }}\n"
        ),
    ];
    stage.apply(&objects.concat());
}

/// Events are written beside the rest.
fn until_an_event_tells_of_it(stage: &Stage) {
    eventually("an event tells of it", || {
        let events = stage.read(&["get", "events", "-o", "name"]);
        if events.contains("event/greeter.") { Ok(()) } else { Err(events) }
    });
}

#[tokio::test]
async fn a_bundle_has_what_it_says_and_no_secret() {
    let mut stage = Stage::new("bundle").await;
    plant(&stage);
    stage.declare("greeter", "3s", "1s");
    let selector = "{\"spec\":{\"podSelector\":{\"matchLabels\":{\"app\":\"greeter\"}}}}";
    stage.kubectl(&["patch", "sreg", "greeter", "--type=merge", "-p", selector]);
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 1 instance ready"));
    until_an_event_tells_of_it(&stage);
    for object in ["sreg/greeter", "lease/greeter.vm-1", "service/greeter"] {
        let annotation = format!("example.com/token={PLANTED}");
        stage.kubectl(&["annotate", object, &annotation]);
    }
    let (_folder, to, printed) = bundle(&stage, &[]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let files = files(&to);
    let object = |path: &str| -> Value {
        let path = format!("objects/{}/{path}.json", stage.namespace);
        let text = files.get(&path).unwrap_or_else(|| panic!("{path} in {:?}", files.keys()));
        serde_json::from_str(text).unwrap()
    };
    assert_eq!(object("serviceregistrations/greeter")["status"]["instances"][0]["name"], "vm-1");
    assert_eq!(object("leases/greeter.vm-1")["spec"]["holderIdentity"], "vm-1");
    assert!(object("services/greeter")["spec"]["clusterIP"].is_string());
    assert!(object("endpoints/greeter")["subsets"].is_array());
    assert_eq!(object("pods/greeter-1")["status"]["phase"], "Pending");
    let deployment = object("deployments/beatkeeper");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["args"], &container["env"]),
        (&json!(["--registry"]), &json!([{ "name": "TOKEN" }]))
    );
    let has = |part: &str| files.keys().any(|path| path.contains(part));
    assert!(has("/endpointslices/greeter-") && has("/events/greeter."), "{:?}", files.keys());
    assert!(files.contains_key(
        "objects/customresourcedefinitions/serviceregistrations.beatkeeper.dev.json"
    ));
    assert!(!has("other-1") && !has("secrets") && !has("configmaps"), "{:?}", files.keys());
    let versions: Value = serde_json::from_str(&files["versions.json"]).unwrap();
    assert!(versions["apiServer"]["gitVersion"].as_str().unwrap().starts_with('v'), "{versions}");
    for (path, text) in &files {
        assert!(!text.contains(PLANTED), "{path}: {text}");
        assert!(
            !text.contains("managedFields") && !text.contains("last-applied"),
            "{path}: {text}"
        );
    }
    // The operator's Pod does not run here.
    for part in ["log", "metrics"] {
        let missing = format!("{part} of Pod {}/beatkeeper-1: ", stage.namespace);
        assert!(files["errors.txt"].contains(&missing), "{part}: {}", files["errors.txt"]);
        assert!(printed.err.contains(&format!("not read: {missing}")), "{part}: {printed:?}");
    }
    assert!(
        printed.out.contains(&format!("      1  objects/{}/services\n", stage.namespace)),
        "{printed:?}"
    );
    assert!(printed.out.contains("Check it before you send it"), "{printed:?}");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_may_not_be_read_is_listed_in_the_bundle_and_told() {
    let stage = Stage::without_operator("bundle-rights").await;
    stage.register("greeter", "");
    let rule = "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [list] }";
    stage.grant(ANN, &[rule]);
    stage.until(&["get", "--as", "ann"], "the role applies", |out| !out.is_empty());
    let (_folder, to, printed) = bundle(&stage, &["--as", "ann"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let files = files(&to);
    assert!(
        files.contains_key(&format!(
            "objects/{}/serviceregistrations/greeter.json",
            stage.namespace
        ))
    );
    for what in ["heartbeat Leases", "EndpointSlices", "Services", "Endpoints", "Pods", "events"] {
        let line = format!("{what} in namespace {}: ", stage.namespace);
        assert!(files["errors.txt"].contains(&line), "{what}: {}", files["errors.txt"]);
        assert!(printed.err.contains(&format!("not read: {line}")), "{what}: {printed:?}");
    }
    assert!(
        files["errors.txt"].contains("cannot list resource \"leases\""),
        "{}",
        files["errors.txt"]
    );
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_told_and_nothing_is_left() {
    let stage = Stage::without_operator("bundle-place").await;
    let printed = stage.plugin(&["support-bundle", "-o", "/nonexistent/bundle.tar.gz"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert!(printed.err.contains("cannot write the support bundle"), "{printed:?}");
}
