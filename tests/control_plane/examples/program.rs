//! An example as a child process.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use crate::support::{TestNamespace, eventually, operator::spawn_from_keeper};

/// The variable with the folder that `scripts/examples` has prepared.
const PREPARED: &str = "BEATKEEPER_EXAMPLES";

/// The rights that the examples grant.
pub const ROLE: &str = include_str!("../../../examples/kubernetes/role.yaml");

/// The registration that the examples beat for.
pub const REGISTRATION: &str = include_str!("../../../examples/kubernetes/registration.yaml");

/// The languages that have examples.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    Shell,
    Python,
    Go,
    Node,
}

impl Program {
    pub const ALL: [Self; 4] = [Self::Shell, Self::Python, Self::Go, Self::Node];

    pub fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Python => "python",
            Self::Go => "go",
            Self::Node => "node",
        }
    }

    pub fn source(self) -> PathBuf {
        let file = match self {
            Self::Shell => "beat.sh",
            Self::Python => "beat.py",
            Self::Go => "beat.go",
            Self::Node => "beat.mjs",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(self.name()).join(file)
    }

    fn command(self) -> Command {
        let interpreted = |interpreter: &str| {
            let mut command = Command::new(installed(interpreter));
            command.arg(self.source());
            command
        };
        match self {
            Self::Shell => {
                installed("curl");
                interpreted("sh")
            }
            Self::Python => {
                let mut command = interpreted("python3");
                command.env("PYTHONPATH", prepared("python"));
                command
            }
            Self::Go => Command::new(prepared("go/beat")),
            Self::Node => interpreted("node"),
        }
    }

    pub fn start(self, settings: &Settings) -> Running {
        Running::start(self.command(), settings)
    }
}

/// The source file of an SDK example.
pub fn sdk_source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("client/examples").join(name).with_extension("rs")
}

/// An SDK example, which `scripts/build` has built.
pub fn sdk(name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_beatkeeper")).with_file_name("examples").join(name);
    assert!(
        built.exists(),
        "{} is not built; run: cargo build --workspace --bins --examples",
        built.display()
    );
    Command::new(built)
}

impl Running {
    /// Starts an example with only the settings that its README asks for.
    pub fn start(mut command: Command, settings: &Settings) -> Self {
        let log = NamedTempFile::new().unwrap();
        command
            .env_remove("POD_NAME")
            .env_remove("POD_UID")
            .envs(settings.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(log.path()).unwrap())
            .stderr(File::options().append(true).open(log.path()).unwrap());
        // A separate process group, because a shell has children.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Self { child: spawn_from_keeper(command), log }
    }
}

/// A program on PATH.
fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("there is no {program} on PATH, which an example needs; see: scripts/tools test")
        })
}

/// A file that `scripts/examples` has installed or built.
fn prepared(what: &str) -> PathBuf {
    let remedy = format!("run: export {PREPARED}=$(scripts/examples)");
    let Some(folder) = std::env::var_os(PREPARED) else {
        panic!("the examples are not prepared, {PREPARED} is not set; {remedy}");
    };
    let path = Path::new(&folder).join(what);
    assert!(path.exists(), "{PREPARED} names a folder without {what}; {remedy}");
    path
}

/// The environment of an example.
pub struct Settings {
    environment: Vec<(&'static str, String)>,
    /// Holds the token and the kubeconfig.
    folder: std::sync::Arc<TempDir>,
}

impl Settings {
    /// The settings of an instance outside the cluster, with the rights that the examples grant.
    pub async fn of(ns: &TestNamespace, instance: &str, address: &str) -> Self {
        apply(ns, ROLE).await;
        let token = ns.plane.token(&ns.name, "heartbeat", None).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let kubeconfig = ns.plane.kubeconfig_with(&token, Some(&ns.name)).unwrap();
        let config: Value = serde_json::from_str(&kubeconfig).unwrap();
        let cluster = &config["clusters"][0]["cluster"];
        let text = |key: &str| cluster[key].as_str().unwrap().to_owned();
        let environment = vec![
            ("BEATKEEPER_REGISTRATION", "greeter".to_owned()),
            ("BEATKEEPER_NAMESPACE", ns.name.clone()),
            ("BEATKEEPER_INSTANCE", instance.to_owned()),
            ("BEATKEEPER_ADDRESS", address.to_owned()),
            ("API_SERVER", text("server")),
            ("CA_FILE", text("certificate-authority")),
            ("TOKEN_FILE", file("token", &token)),
            ("KUBECONFIG", file("kubeconfig", &kubeconfig)),
        ];
        Self { environment, folder: folder.into() }
    }

    /// Replaces the token as a kubelet does it. The kubeconfig refers to its file from now on.
    pub fn replace_token(&self, token: &str) {
        let path = |name: &str| self.folder.path().join(name);
        let replace = |name: &str, content: &str| {
            std::fs::write(path("draft"), content).unwrap();
            std::fs::rename(path("draft"), path(name)).unwrap();
        };
        replace("token", token);
        let kubeconfig = std::fs::read_to_string(path("kubeconfig")).unwrap();
        let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
        kubeconfig["users"][0]["user"] = json!({ "tokenFile": path("token") });
        replace("kubeconfig", &kubeconfig.to_string());
    }

    /// The same settings in a Pod. The Pod gives the instance its name and address.
    pub fn in_pod(&self, pod: &str, uid: &str) -> Self {
        let mut environment = self.environment.clone();
        environment
            .retain(|(name, _)| !["BEATKEEPER_INSTANCE", "BEATKEEPER_ADDRESS"].contains(name));
        environment.extend([("POD_NAME", pod.to_owned()), ("POD_UID", uid.to_owned())]);
        Self { environment, folder: self.folder.clone() }
    }
}

/// A running example. It and its children are killed when this is dropped.
pub struct Running {
    child: Child,
    log: NamedTempFile,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until the output contains a text.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the example says {text:?}"), async || {
            std::fs::read_to_string(self.log.path()).unwrap().contains(text).then_some(())
        })
        .await;
    }

    /// Kills the example with SIGKILL, as a crash does. It can do nothing more.
    pub fn kill(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it has ended before it is killed");
        kill_process_group(self.pid(), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM to the example only, as a kubelet does. Waits until it has ended by itself.
    pub async fn terminate(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let ended =
            eventually("the example stops on SIGTERM", async || self.child.try_wait().unwrap());
        let status = ended.await;
        assert!(status.success(), "it ends with {status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process group exists until its leader has been waited for.
        if self.child.try_wait().unwrap().is_none() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
            eprintln!("--- the example said:\n{log}");
        }
    }
}

/// Applies a manifest of the examples with `kubectl apply`, in the test's namespace instead of
/// `default`.
pub async fn apply(ns: &TestNamespace, manifest: &str) {
    apply_with(ns, manifest, &[]).await;
}

/// Like [`apply`], with more flags. Returns the warnings.
pub async fn apply_with(ns: &TestNamespace, manifest: &str, flags: &[&str]) -> String {
    let manifest = manifest.replace("namespace: default", &format!("namespace: {}", ns.name));
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(manifest.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    kubectl(ns, &[&["apply", "--filename", path], flags].concat()).await.1
}

/// The standard output and standard error of kubectl.
pub async fn kubectl(ns: &TestNamespace, arguments: &[&str]) -> (String, String) {
    let mut kubectl = tokio::process::Command::from(ns.plane.kubectl());
    let output = kubectl.args(arguments).stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, warned) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{warned}");
    (said, warned)
}
