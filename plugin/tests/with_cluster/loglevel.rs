//! `loglevel` lets kubectl run a program in the operator's Pods. No kubelet runs in these tests, so nothing can run in a Pod.

use std::{env, ffi::OsString, fs, os::unix::fs::PermissionsExt, path::Path};

use crate::stage::{Printed, Stage, eventually, printed};

/// Creates a Pod with a label, which runs as far as the API server knows.
fn running(stage: &Stage, name: &str, label: &str) {
    eventually("the namespace has its ServiceAccount", || {
        let accounts = stage.read(&["get", "serviceaccounts", "-o", "name"]);
        if accounts.contains("serviceaccount/default") { Ok(()) } else { Err(accounts) }
    });
    stage.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ {label}: beatkeeper }} }}\nspec:\n  \
         containers: [{{ name: controller, image: beatkeeper.example/none:1.0.0 }}]\n"
    ));
    let status = r#"{"status":{"phase":"Running"}}"#;
    stage.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", status]);
}

/// Runs the plugin with a folder as the first of its PATH.
fn with_path(stage: &Stage, first: &Path, words: &[&str]) -> Printed {
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = [first.to_owned()].into_iter().chain(env::split_paths(&old));
    let path: OsString = env::join_paths(folders).unwrap();
    let mut command = stage.command(words);
    command.env("PATH", path);
    printed(command)
}

#[tokio::test]
async fn every_pod_of_the_operator_and_no_other_one_is_told() {
    let stage = Stage::without_operator("loglevel").await;
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\necho \"$*\" >&2\ncase \"$*\" in *pod/op-2*) exit 1 ;; esac\n";
    let kubectl = folder.path().join("kubectl");
    fs::write(&kubectl, script).unwrap();
    fs::set_permissions(&kubectl, PermissionsExt::from_mode(0o755)).unwrap();

    let none = with_path(&stage, folder.path(), &["loglevel", "all", "debug"]);
    let why = format!(
        "error: no Pod with the label beatkeeper.dev/operator runs in namespace {}\n\
         Name the namespace of the operator with -n.\n",
        stage.namespace
    );
    assert_eq!((none.code, none.out, none.err), (1, String::new(), why));

    running(&stage, "op-1", "beatkeeper.dev/operator");
    running(&stage, "op-2", "beatkeeper.dev/operator");
    running(&stage, "web", "app");
    let told = |pod: &str, level: &str| {
        format!(
            "--namespace {} --as system:admin --as-group system:masters exec pod/{pod} --container controller -- \
             /beatkeeper log-level {level}",
            stage.namespace
        )
    };
    let user = ["--as", "system:admin", "--as-group", "system:masters"];
    let all =
        with_path(&stage, folder.path(), &[&["loglevel", "all", "debug"], &user[..]].concat());
    assert_eq!((all.code, &*all.out), (1, "pod/op-1 log level set to debug\n"), "{all:?}");
    let failed = told("op-2", "debug");
    let err = format!(
        "{}\n{failed}\npod/op-2 logs as before. This has failed: kubectl {failed}\n",
        told("op-1", "debug")
    );
    assert_eq!(all.err, err);

    let words = [&["loglevel", "op-1", "configured", "--print"], &user[..]].concat();
    let only = with_path(&stage, folder.path(), &words);
    let typed = format!("kubectl {}\n", told("op-1", "configured"));
    assert_eq!((only.code, only.out, only.err), (0, typed, String::new()));
}

#[tokio::test]
async fn kubectl_and_the_api_server_understand_the_request() {
    let stage = Stage::without_operator("loglevel-exec").await;
    running(&stage, "op-1", "beatkeeper.dev/operator");
    let kubectl = stage.plane.kubectl();
    let folder = Path::new(kubectl.get_program()).parent().unwrap();
    let asked = with_path(&stage, folder, &["loglevel", "op-1", "debug"]);
    assert_eq!((asked.code, &*asked.out), (1, ""), "{asked:?}");
    // All is well with the request but that the Pod is on no node.
    assert!(asked.err.contains("pod op-1 does not have a host assigned"), "{asked:?}");
}
