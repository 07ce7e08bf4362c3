//! `lint` says of a file what the API server says of the object. Both are tested with the same mistakes:
//! `tests/control_plane/crd.rs` sends them to an API server.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/control_plane/crd/mistakes.rs"]
mod mistakes;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use kubectl_beatkeeper::lint::{Source, finding::Finding, lint, mistake::Level};
use serde_json::{Value, json};

/// What is refused of an object.
fn refused(object: &Value) -> Vec<Finding> {
    let source = Source { name: "a.yaml".to_owned(), text: object.to_string() };
    let report = lint(&[source], "default", None);
    report.findings.into_iter().filter(|it| it.level == Level::Error).collect()
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": name }, "spec": spec,
    })
}

#[test]
fn each_mistake_is_told_as_the_api_server_tells_it_and_nothing_else_is() {
    for (mistake, spec, expected) in mistakes::in_specs() {
        let told: Vec<String> = refused(&object("greeter", &spec))
            .iter()
            .map(|it| format!("{}: {}", it.field, it.what))
            .collect();
        assert_eq!(told.len(), expected.len(), "{mistake}: {told:#?}");
        for part in expected {
            let words: Vec<&str> = part.split(" … ").collect();
            let fits = |line: &String| words.iter().all(|word| line.contains(word));
            assert!(told.iter().any(fits), "{mistake}: no {part:?} in {told:#?}");
        }
    }
}

/// Every rule of a schema, and of what is in it.
fn rules(schema: &Value, all: &mut Vec<ValidationRule>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match &**name {
                    "x-kubernetes-validations" => {
                        let rules: Vec<ValidationRule> =
                            serde_json::from_value(value.clone()).unwrap();
                        all.extend(rules);
                    }
                    _ => rules(value, all),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| rules(item, all)),
        _ => {}
    }
}

#[test]
fn every_rule_of_the_crd_refuses_one_of_the_mistakes() {
    let mut all = Vec::new();
    rules(&serde_json::to_value(beatkeeper_api::crd()).unwrap(), &mut all);
    assert!(all.len() > 15, "{}", all.len());
    let mut told: Vec<String> = mistakes::in_specs()
        .iter()
        .flat_map(|(_, spec, _)| refused(&object("greeter", spec)))
        .map(|it| it.what)
        .collect();
    let spec = json!({ "ports": [{ "port": 80 }] });
    told.extend(refused(&object("greeter.shop", &spec)).into_iter().map(|it| it.what));
    for rule in all {
        // What was before a change is in no file.
        if rule.field_path.as_deref() == Some(".spec.serviceName") {
            continue;
        }
        let message = rule.message.as_deref().unwrap_or("must be shorter than ttl");
        assert!(told.iter().any(|it| it.contains(message)), "{}: {message}", rule.rule);
    }
}

#[test]
fn what_the_repository_offers_to_copy_is_fine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
    let folders = [root.join("examples/kubernetes"), root.join("demo")];
    command.args(["lint", "--strict", "-f"]).args(folders);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("in 0 registrations"), "{said}");
}

#[test]
fn standard_input_is_read_for_a_hyphen() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
    command.args(["lint", "-o", "short", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let object = object("greeter", &json!({ "podSelector": {} }));
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "stdin:1: error: ServiceRegistration greeter: spec.ports: Required value\n"
    );
}
