//! `beatkeeper agent` and its subcommands, as processes beside a real operator.

mod ending;
mod reloading;
mod way;

use std::{
    path::Path,
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use beatkeeper_api::heartbeat;
use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixDatagram},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{TestNamespace, eventually, prometheus::free_port};

const PATIENCE: Duration = Duration::from_secs(30);

impl TestNamespace {
    /// The command `beatkeeper agent` with these arguments, in this namespace.
    fn agent_command(&self, action: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
        command
            .args(["agent", action, "--namespace", &self.name])
            .args(flags)
            .env_remove("POD_NAME")
            .env("KUBECONFIG", self.plane.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn agent(&self, action: &str, flags: &[&str]) -> Child {
        self.agent_command(action, flags).spawn().unwrap()
    }

    /// Waits until the status says that vm-1 fails with these words. An earlier message may say
    /// that there was no probe yet.
    async fn told_of_the_probe(&self, words: &str) {
        eventually(&format!("vm-1 is told to fail: {words}"), async || {
            let told = self.instance("greeter", "vm-1", "NotReady", "HealthFailing").await;
            told.message.contains(words).then_some(())
        })
        .await;
    }

    /// Runs an agent that ends by itself, and returns its output.
    pub async fn agent_once(&self, action: &str, flags: &[&str]) -> Output {
        let output = self.agent_command(action, flags).output();
        timeout(PATIENCE, output).await.unwrap().unwrap()
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until the process ends, and returns its exit code.
async fn exit_code(child: &mut Child) -> Option<i32> {
    timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const VM_1: [&str; 4] =
    ["--registration=greeter", "--instance=vm-1", "--address=192.0.2.1", "--pod="];

fn vm_1<'a>(more: &[&'a str]) -> Vec<&'a str> {
    VM_1.iter().chain(more).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_makes_an_instance_failing_and_one_that_succeeds_brings_it_back() {
    let ns = TestNamespace::new("agent-probe").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let sign = folder.path().join("healthy");
    let config = format!(
        "probes: [{{ exec: {{ command: [test, -e, {}] }}, periodSeconds: 1, timeoutSeconds: 30,
                     failureThreshold: 1 }}]",
        sign.display()
    );
    let config = write(folder.path(), "agent.yaml", &config);
    let mut agent = ns.agent("run", &vm_1(&["--config", &config]));
    ns.told_of_the_probe("exec probe test: ended with 1").await;
    std::fs::write(&sign, "").unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    std::fs::remove_file(&sign).unwrap();
    ns.told_of_the_probe("exec probe test: ended with 1").await;
    signal(&agent, Signal::TERM);
    assert_eq!(exit_code(&mut agent).await, Some(0));
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_command_takes_its_instance_with_it_and_its_exit_code_is_passed_on() {
    let ns = TestNamespace::new("agent-exec").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 7", end.display());
    let mut agent = ns.agent("exec", &vm_1(&["--", "sh", "-c", &script]));
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    std::fs::write(&end, "").unwrap();
    assert_eq!(exit_code(&mut agent).await, Some(7));
    assert_eq!(ns.lease("greeter.vm-1").await, None, "deregistered before it ends");
    ns.published_as_ready("greeter", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_command_drains_before_it_is_told_to_end() {
    let ns = TestNamespace::new("agent-term").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let [ended, reloaded, listens] =
        ["ended", "reloaded", "listens"].map(|name| folder.path().join(name));
    let script = format!(
        "trap 'touch {}; exit 3' TERM; trap 'touch {}' HUP; touch {}; while :; do sleep 0.05; done",
        ended.display(),
        reloaded.display(),
        listens.display()
    );
    let flags = vm_1(&["--drain-delay=5s", "--", "sh", "-c", &script]);
    let mut agent = ns.agent("exec", &flags);
    eventually("the command listens to signals", async || listens.exists().then_some(())).await;
    eventually("it is registered", async || ns.lease("greeter.vm-1").await).await;
    signal(&agent, Signal::HUP);
    eventually("other signals are passed on", async || reloaded.exists().then_some(())).await;
    let asked = SystemTime::now();
    signal(&agent, Signal::TERM);
    eventually("it drains", async || {
        let lease = ns.lease("greeter.vm-1").await?;
        (lease.annotations().get(heartbeat::HEALTH_ANNOTATION)? == "Draining").then_some(())
    })
    .await;
    assert_eq!(exit_code(&mut agent).await, Some(3));
    let told = ended.metadata().unwrap().modified().unwrap().duration_since(asked).unwrap();
    // The clock of the file system is a little slow.
    let drained = told >= Duration::from_millis(4900);
    assert!(drained, "the command was told to end before routers could notice: after {told:?}");
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_run_is_never_published() {
    let ns = TestNamespace::new("agent-127").await;
    ns.greeter().await;
    let output = ns.agent_once("exec", &vm_1(&["--", "no-such-command"])).await;
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stdout).starts_with("cannot run no-such-command"), "{output:?}");
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_hand_an_instance_registers_beats_drains_is_looked_at_and_leaves() {
    let ns = TestNamespace::new("agent-hand").await;
    let _operator = ns.operator();
    ns.patient_greeter().await;
    let who = ["--registration=greeter", "--instance=vm-1"];
    let absent = ns.agent_once("heartbeat", &who).await;
    assert_eq!(absent.status.code(), Some(1));
    let lease = format!("{}/greeter.vm-1", ns.name);
    assert_eq!(
        text(&absent.stderr),
        format!("error: not registered: there is no Lease {lease}; register the instance first\n")
    );

    let registered = ns.agent_once("register", &vm_1(&["--app-version=1.4.2"])).await;
    assert!(registered.status.success(), "{registered:?}");
    let first = ns.lease("greeter.vm-1").await.expect("a Lease").spec.unwrap().renew_time;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let beaten = ns.agent_once("heartbeat", &who).await;
    assert_eq!(text(&beaten.stdout), format!("{lease} has beaten\n"));
    let second = ns.lease("greeter.vm-1").await.expect("a Lease").spec.unwrap().renew_time;
    assert_ne!(first, second);

    let drained = ns.agent_once("drain", &[&who[..], &["--note=new disk"]].concat()).await;
    assert_eq!(text(&drained.stdout), format!("{lease} drains\n"));
    let draining = ns.instance("greeter", "vm-1", "Draining", "HealthDraining").await;
    assert_eq!(draining.message, "new disk");

    let table = ns.agent_once("status", &[]).await;
    let table = text(&table.stdout);
    assert!(table.starts_with("REGISTRATION   INSTANCE   STATE"), "{table}");
    assert!(table.contains("greeter        vm-1       Draining   HealthDraining"), "{table}");
    let json = ns.agent_once("status", &["--registration=greeter", "-o", "json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["registration"], "greeter");
    assert_eq!((&json[0]["name"], &json[0]["state"]), (&"vm-1".into(), &"Draining".into()));
    let unknown = ns.agent_once("status", &["--registration=nobody"]).await;
    assert!(text(&unknown.stderr).ends_with("/nobody does not exist\n"), "{unknown:?}");

    let left = ns.agent_once("deregister", &who).await;
    assert_eq!(text(&left.stdout), format!("{lease} deregistered\n"));
    assert_eq!(ns.lease("greeter.vm-1").await, None);
    let again = ns.agent_once("deregister", &who).await;
    assert_eq!(text(&again.stdout), format!("{lease} was not registered\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_beat_is_beaten_for_while_its_probes_succeed() {
    let ns = TestNamespace::new("agent-proxy").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let port = free_port();
    let target = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let config = format!(
        "
        registration: greeter
        instances:
        - instance: db-1
          addresses: [192.0.2.1]
          probes: [{{ tcpSocket: {{ port: {port} }}, periodSeconds: 1, failureThreshold: 1 }}]
        "
    );
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "agent.yaml", &config);
    let mut agent = ns.agent("proxy", &["--config", &config]);
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    drop(target);
    ns.instance("greeter", "db-1", "Expired", "TTLPassed").await;
    ns.published_as_ready("greeter", &[]).await;
    let _target = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    signal(&agent, Signal::TERM);
    assert_eq!(exit_code(&mut agent).await, Some(0));
    assert!(ns.lease("greeter.db-1").await.is_some(), "the target did not end with the agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_beats_for_all_that_its_file_lists() {
    let ns = TestNamespace::new("agent-many").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let config = "
        registration: greeter
        instances:
        - { instance: vm-1, addresses: [192.0.2.1] }
        - { instance: vm-2, addresses: [192.0.2.2] }
        - { instance: vm-3, addresses: [192.0.2.3] }
        ";
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "agent.yaml", config);
    let mut command = ns.agent_command("run", &["--config", &config]);
    let agent = command.stdout(Stdio::piped()).spawn().unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    signal(&agent, Signal::TERM);
    let output = timeout(PATIENCE, agent.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let lines = text(&output.stdout);
    assert!(lines.contains("greeter.vm-2: beating as vm-2 for"), "{lines}");
    for name in ["greeter.vm-1", "greeter.vm-2", "greeter.vm-3"] {
        assert_eq!(ns.lease(name).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_when_it_is_ready_that_it_lives_and_that_it_stops() {
    let ns = TestNamespace::new("agent-systemd").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = ns.agent_command("run", &VM_1);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
    let mut agent = command.spawn().unwrap();
    let mut buffer = [0; 256];
    let mut hears = async || {
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        text(&buffer[..length]).trim().to_owned()
    };
    // The agent runs, but there is no registration to beat for.
    for _ in 0..3 {
        assert_eq!(hears().await, "WATCHDOG=1");
    }
    ns.greeter().await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "READY=1") {
        heard.push(hears().await);
    }
    assert!(ns.lease("greeter.vm-1").await.is_some());
    signal(&agent, Signal::TERM);
    while heard.last().is_none_or(|last| last != "STOPPING=1") {
        heard.push(hears().await);
    }
    assert_eq!(exit_code(&mut agent).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_its_first_beat_was_accepted() {
    let ns = TestNamespace::new("agent-ready").await;
    let free = format!("127.0.0.1:{}", free_port());
    let address = format!("--health-bind-address={free}");
    let _agent = ns.agent("run", &vm_1(&[&address]));
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(&free).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    let alive = eventually("it answers", async || get("/livez").await).await;
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    let waiting = get("/readyz").await.unwrap();
    assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
    assert!(waiting.ends_with("no beat accepted yet of 1 instances\n"), "{waiting}");
    ns.greeter().await;
    eventually("it is ready", async || {
        get("/readyz").await.filter(|answer| answer.starts_with("HTTP/1.1 200"))
    })
    .await;
    assert!(ns.lease("greeter.vm-1").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_refused_before_anything_is_written() {
    let ns = TestNamespace::new("agent-file").await;
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "agent.yaml", "registration: greeter\ninterwal: 5s\n");
    let output = ns.agent_once("run", &["--config", &config]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("agent.yaml") && error.contains("interwal"), "{error}");
}
