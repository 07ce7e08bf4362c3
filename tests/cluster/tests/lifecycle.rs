//! Control planes come up, fail, break and end.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use beatkeeper_cluster::{ControlPlane, Options};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use rustix::process::{Pid, Signal, kill_process};

const COMMAND: &str = env!("CARGO_BIN_EXE_beatkeeper-cluster");

/// `beatkeeper-cluster up` in a process of its own, and what it started.
struct Up {
    command: Child,
    data: PathBuf,
}

impl Up {
    fn start() -> Self {
        let mut command = Command::new(COMMAND).arg("up").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(command.stdout.take().unwrap()).lines();
        let data = lines
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_prefix("export BEATKEEPER_TEST_CLUSTER=").map(PathBuf::from)
            })
            .unwrap();
        Self { command, data }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.command), signal).unwrap();
    }
}

async fn pids(plane: &ControlPlane) -> Vec<u32> {
    let mut pids = Vec::new();
    for component in [plane.etcd(), plane.api_server(), plane.controller_manager()] {
        pids.push(component.pid().await.unwrap().unwrap());
    }
    pids
}

/// A zombie has ended; whether orphans are reaped depends on the machine.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < by, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_control_plane_for_a_thread_ends_with_it() {
    let started = std::thread::spawn(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let plane = ControlPlane::start_for_this_thread(Options::default()).await.unwrap();
            pids(plane).await
        })
    });
    let pids = started.join().unwrap();
    eventually("all three have ended", || !pids.iter().any(|pid| runs(*pid)));
}

#[tokio::test]
async fn a_control_plane_dies_with_its_parent_even_by_sigkill_and_the_next_one_sweeps_its_folder() {
    let mut up = Up::start();
    let plane = ControlPlane::attach(&up.data).await.unwrap();
    let pids = pids(&plane).await;
    // Suspended ones cannot help in their own end.
    plane.etcd().suspend().await.unwrap();

    up.signal(Signal::KILL);
    up.command.wait().unwrap();

    eventually("all three have ended", || !pids.iter().any(|pid| runs(*pid)));
    assert!(up.data.exists());

    // It need not come up: the sweep is the first thing that happens.
    let next = ControlPlane::start(Options::default());
    let swept = async {
        while up.data.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        swept = tokio::time::timeout(Duration::from_secs(60), swept) => swept.unwrap(),
        next = next => drop(next.unwrap()),
    }
    assert!(!up.data.exists());
}

#[tokio::test]
async fn ctrl_c_leaves_no_process_and_no_folder_behind() {
    let mut up = Up::start();
    let pids = pids(&ControlPlane::attach(&up.data).await.unwrap()).await;

    up.signal(Signal::INT);

    assert!(up.command.wait().unwrap().success());
    assert!(!pids.iter().any(|pid| runs(*pid)));
    assert!(!up.data.exists());
}

#[tokio::test]
async fn an_attached_process_can_break_and_mend_the_control_plane_of_another() {
    let mut up = Up::start();
    let attached = ControlPlane::attach(&up.data).await.unwrap();
    let before = attached.api_server().pid().await.unwrap();
    attached.api_server().kill().await.unwrap();
    assert_eq!(attached.api_server().pid().await.unwrap(), None);
    attached.api_server().start().await.unwrap();
    let after = attached.api_server().pid().await.unwrap().unwrap();
    assert_ne!(before, Some(after));
    drop(attached);
    assert!(runs(after), "it belongs to the other process");

    up.signal(Signal::TERM);
    up.command.wait().unwrap();
    assert!(!runs(after));
}

#[test]
fn a_command_sees_its_control_plane_and_its_exit_code_is_passed_on() {
    let script = "kubectl get namespaces -o name && echo $BEATKEEPER_TEST_CLUSTER && exit 7";
    let output = Command::new(COMMAND).args(["exec", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("namespace/default\n"), "{said}");
    let data = said.lines().last().unwrap();
    assert!(!Path::new(data).exists());
}

#[tokio::test]
async fn two_control_planes_run_side_by_side() {
    let (one, other) = tokio::join!(
        ControlPlane::start(Options::default()),
        ControlPlane::start(Options::default()),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    let namespace = one.namespace("only-here").await.unwrap();
    let theirs: Api<Namespace> = Api::all(other.admin_client().unwrap());
    assert!(theirs.get_opt(&namespace).await.unwrap().is_none());
    one.stop().await.unwrap();
    theirs.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_failed_start_shows_the_end_of_the_log_and_where_it_lies() {
    let options =
        Options { api_server_flags: vec!["--no-such-flag".to_owned()], ..Options::default() };
    let error = ControlPlane::start(options).await.err().unwrap().to_string();
    assert!(error.contains("kube-apiserver ended (exit status: 1)"), "{error}");
    assert!(error.contains("unknown flag: --no-such-flag"), "{error}");
    let (_, rest) = error.split_once("the last lines of ").unwrap();
    let log = PathBuf::from(rest.split_once(":\n").unwrap().0);
    assert!(log.exists());
    let folder = log.parent().and_then(Path::parent).unwrap();
    fs::remove_dir_all(folder).unwrap();
}
