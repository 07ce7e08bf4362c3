//! How the plugin comes to users: the manifest for krew, as the real krew installs it, and the plugins for k9s.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::stage::{Printed, Stage, printed};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder with krew, and with what validates the plugins of k9s.
fn tools() -> PathBuf {
    let mut script = Command::new(root().join("scripts/plugin-tools"));
    let output = script.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the tools are there");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// The plugin without what only a debugger reads: its archive is made in seconds.
fn stripped(folder: &Path) -> PathBuf {
    let to = folder.join("kubectl-beatkeeper");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&to).arg(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
    assert!(strip.status().unwrap().success());
    to
}

#[tokio::test]
async fn krew_validates_the_manifest_and_installs_the_archive_so_that_kubectl_runs_it() {
    let stage = Stage::without_operator("krew").await;
    let (tools, folder) = (tools(), tempfile::tempdir().unwrap());
    let (to, home) = (folder.path().join("release"), folder.path().join("krew"));
    let binary = stripped(folder.path());
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    let arch = arch.replace("x86_64", "amd64").replace("aarch64", "arm64");
    let mut make = Command::new(root().join("scripts/krew"));
    make.arg(&to).arg(format!("{os}/{arch}={}", binary.display()));
    make.arg(format!("darwin/arm64={}", binary.display()));
    assert!(make.status().unwrap().success());
    let manifest = to.join("beatkeeper.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(!text.contains("{{"), "all is filled in: {text}");
    let mut validate = Command::new(tools.join("validate-krew-manifest"));
    validate.arg("-manifest").arg(&manifest).arg("-skip-install");
    let said = printed(validate);
    assert_eq!(said.code, 0, "{said:?}");
    let version = env!("CARGO_PKG_VERSION");
    let archive = to.join(format!("kubectl-beatkeeper_v{version}_{os}_{arch}.tar.gz"));
    let install = |archive: &Path| {
        let mut krew = Command::new(tools.join("krew"));
        krew.env("KREW_ROOT", &home).env("KREW_NO_UPGRADE_CHECK", "1").stdin(Stdio::null());
        krew.args(["install", "--manifest"]).arg(&manifest).arg("--archive").arg(archive);
        printed(krew)
    };
    let other = folder.path().join("other.tar.gz");
    fs::write(&other, "another archive").unwrap();
    let refused = install(&other);
    assert_ne!(refused.code, 0, "its checksum is not that of the manifest: {refused:?}");
    let said = install(&archive);
    assert_eq!(said.code, 0, "{said:?}");
    let mut kubectl = stage.plane.kubectl();
    kubectl.args(["beatkeeper", "version"]).env("PATH", home.join("bin"));
    let said = printed(kubectl);
    assert_eq!(
        said.out,
        format!("kubectl-beatkeeper {version}, reads beatkeeper.dev/v1alpha1\n"),
        "{said:?}"
    );
}

/// The plugins of k9s.
fn plugins() -> Value {
    let text = fs::read_to_string(root().join("plugin/k9s/plugins.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn the_plugins_for_k9s_are_as_its_schema_wants_them() {
    let (tools, folder) = (tools(), tempfile::tempdir().unwrap());
    let valid = |plugins: &Value| {
        let file = folder.path().join("plugins.json");
        fs::write(&file, plugins.to_string()).unwrap();
        let mut jv = Command::new(tools.join("jv"));
        jv.arg(tools.join("plugins.json")).arg(file);
        let said = printed(jv);
        if said.code == 0 { Ok(()) } else { Err(said) }
    };
    let mut plugins = plugins();
    valid(&plugins).unwrap();
    plugins["plugins"]["beatkeeper-why"].as_object_mut().unwrap().remove("shortCut");
    valid(&plugins).expect_err("a plugin without a key");
}

/// Runs a plugin of k9s for an object, as k9s fills in its arguments.
fn run(stage: &Stage, folder: &Path, plugin: &str, name: &str) -> Printed {
    let plugin = &plugins()["plugins"][plugin];
    let config: Value =
        serde_json::from_str(&fs::read_to_string(stage.plane.kubeconfig()).unwrap()).unwrap();
    let context = config["current-context"].as_str().unwrap();
    let filled = |arg: &Value| match arg.as_str().unwrap() {
        "$NAME" => name.to_owned(),
        "$NAMESPACE" => stage.namespace.clone(),
        "$CONTEXT" => context.to_owned(),
        other => other.to_owned(),
    };
    let mut command = Command::new(plugin["command"].as_str().unwrap());
    command.args(plugin["args"].as_array().unwrap().iter().map(filled));
    let own = Path::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper")).parent().unwrap();
    let kubectl = stage.plane.bin("kubectl");
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = [folder, own, kubectl.parent().unwrap()].map(Path::to_owned).into_iter();
    command.env("PATH", env::join_paths(folders.chain(env::split_paths(&old))).unwrap());
    command.env("KUBECONFIG", stage.plane.kubeconfig()).stdin(Stdio::null());
    printed(command)
}

#[tokio::test]
async fn the_plugins_for_k9s_do_what_they_say_to_the_selected_object() {
    let mut stage = Stage::new("k9s").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    stage.until(&["get"], "they are ready", |tree| tree.contains("2 of 2 instances ready"));
    let folder = tempfile::tempdir().unwrap();
    // Without a terminal, and on machines without it, `less` only passes on what it reads.
    fs::write(folder.path().join("less"), "#!/bin/sh\nexec cat\n").unwrap();
    fs::set_permissions(folder.path().join("less"), PermissionsExt::from_mode(0o755)).unwrap();
    let run = |plugin: &str, name: &str| run(&stage, folder.path(), plugin, name);
    let said = run("beatkeeper-get", "greeter");
    assert!(said.out.contains("2 of 2 instances ready"), "{said:?}");
    let said = run("beatkeeper-why", "greeter.vm-1");
    assert!(said.out.contains("vm-1 of ") && said.out.contains("is Ready"), "{said:?}");
    let said = run("beatkeeper-cordon", "greeter.vm-1");
    assert!(said.out.contains("instance greeter/vm-1 cordoned"), "{said:?}");
    assert!(stage.annotations("greeter.vm-1")["beatkeeper.dev/cordoned"].is_string());
    let said = run("beatkeeper-uncordon", "greeter.vm-1");
    assert!(said.out.contains("instance greeter/vm-1 uncordoned"), "{said:?}");
    assert!(stage.annotations("greeter.vm-1")["beatkeeper.dev/cordoned"].is_null());
    stage.until(&["get"], "it is back", |tree| tree.contains("2 of 2 instances ready"));
    let said = run("beatkeeper-drain", "greeter.vm-2");
    assert!(said.out.contains("instance greeter/vm-2 draining"), "{said:?}");
    let said = run("beatkeeper-why", "$(touch nothing)");
    assert!(
        said.out.contains("there is no heartbeat Lease") || said.out.contains("invalid"),
        "{said:?}"
    );
}
