//! kubectl runs and completes the plugin.

use std::{env, ffi::OsString, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::stage::{Printed, Stage, printed};

/// A kubectl that finds the plugin and its helper on its PATH.
fn kubectl(stage: &Stage, folder: &Path, words: &[&str]) -> Printed {
    let mut command: Command = stage.plane.kubectl();
    let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper")).parent().unwrap();
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = [folder.to_owned(), plugin.to_owned()].into_iter().chain(env::split_paths(&old));
    let path: OsString = env::join_paths(folders).unwrap();
    command.args(words).env("PATH", path).env("KUBECONFIG", stage.plane.kubeconfig());
    printed(command)
}

#[tokio::test]
async fn kubectl_runs_the_plugin_and_completes_its_commands_and_names() {
    let stage = Stage::without_operator("shell").await;
    stage.register("greeter", "");
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("kubectl_complete-beatkeeper");
    std::fs::write(&helper, stage.plugin(&["completion", "kubectl"]).out).unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let run = kubectl(
        &stage,
        folder.path(),
        &["beatkeeper", "get", "-n", &stage.namespace, "-o", "name"],
    );
    assert_eq!(
        (run.code, run.out.as_str()),
        (0, "serviceregistration.beatkeeper.dev/greeter\n"),
        "{run:?}"
    );
    let completed = |words: &[&str]| {
        let all = [&["__complete", "beatkeeper"], words].concat();
        kubectl(&stage, folder.path(), &all).out
    };
    let commands = completed(&[""]);
    assert!(commands.contains("get\tShow registrations"), "{commands}");
    assert!(!commands.contains("__complete"), "{commands}");
    let names = completed(&["get", "--namespace", &stage.namespace, "g"]);
    assert!(names.starts_with("greeter\tPending\n"), "{names}");
    let formats = completed(&["get", "-o", ""]);
    assert!(formats.contains("wide\t") && formats.contains("json\t"), "{formats}");
    let flags = completed(&["get", "--a"]);
    assert!(flags.contains("--all-namespaces\t") && flags.contains("--as\t"), "{flags}");
}
