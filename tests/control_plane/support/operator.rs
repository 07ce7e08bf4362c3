//! `beatkeeper controller` as a process, for one namespace.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use beatkeeper_cluster::ControlPlane;
use rustix::process::{Pid, Signal, kill_process};

/// A running operator. It is killed when this is dropped.
pub struct Operator {
    child: Child,
    pub log: PathBuf,
}

impl Operator {
    /// Starts an operator that watches one namespace only, so that tests on a shared control plane
    /// do not affect each other. `flags` come last.
    pub fn start(plane: &ControlPlane, namespace: &str, flags: &[&str]) -> Self {
        Self::start_as(None, &plane.kubeconfig(), namespace, flags)
    }

    /// Like [`Self::start`], with the name of a Pod, which the audit log shows in the user agent,
    /// and with another kubeconfig.
    pub fn start_as(pod: Option<&str>, kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Self {
        let elsewhere = [&["--cluster-network=203.0.113.0/24"], flags].concat();
        // Tests use the same addresses at the same time. With this network the operator ignores
        // their use in other namespaces.
        let flags = if namespace.is_empty() { flags } else { &elsewhere };
        let say = "info,beatkeeper=debug,kube_client=error";
        Self::start_saying(say, pod, kubeconfig, namespace, flags)
    }

    /// Like [`Self::start_as`], with only the given flags and with another `RUST_LOG`.
    pub fn start_saying(
        say: &str,
        pod: Option<&str>,
        kubeconfig: &Path,
        namespace: &str,
        flags: &[&str],
    ) -> Self {
        Self::spawn(say, pod, None, kubeconfig, namespace, flags)
    }

    /// Like [`Self::start_as`], in a Pod of the namespace that it watches.
    pub fn start_in_pod(pod: &str, kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Self {
        let say = "info,beatkeeper=debug,kube_client=error";
        Self::spawn(say, Some(pod), Some(namespace), kubeconfig, namespace, flags)
    }

    fn spawn(
        say: &str,
        pod: Option<&str>,
        home: Option<&str>,
        kubeconfig: &Path,
        namespace: &str,
        flags: &[&str],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
        command.arg("controller");
        if !namespace.is_empty() {
            command.args(["--namespace", namespace]);
        }
        let log = tempfile::Builder::new()
            .prefix("beatkeeper-operator-")
            .suffix(".log")
            .tempfile()
            .unwrap()
            .keep()
            .unwrap()
            .1;
        command
            .args(flags)
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", say)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        match pod {
            Some(pod) => command.env("POD_NAME", pod),
            None => command.env_remove("POD_NAME"),
        };
        if let Some(home) = home {
            command.env("POD_NAMESPACE", home);
        }
        // The spawning thread must live as long as the test process: see `die_with_this_thread`.
        let child = spawn_from_keeper(command);
        Self { child, log }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends SIGTERM and waits until the operator has ended. Returns whether it exited with 0.
    pub async fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        let ended = super::eventually("the operator stops on SIGTERM", async || {
            self.child.try_wait().unwrap()
        });
        ended.await.success()
    }

    /// Kills the operator with SIGKILL, as a crash does. It can do nothing more.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends `beatkeeper log-level`. Returns the reason if the program refuses.
    pub fn change_log_level(&self, level: &str) -> Result<(), String> {
        log_level(level, self.child.id())
    }

    /// The operator's log so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The address that the operator listens on for a flag. Waits until it listens.
    pub async fn address(&self, flag: &str) -> String {
        super::eventually(&format!("the operator listens for --{flag}"), async || {
            let log = self.logged();
            let line =
                log.lines().find(|line| line.contains(&format!("listening flag=\"{flag}\"")))?;
            Some(line.rsplit_once("bound=")?.1.trim().to_owned())
        })
        .await
    }

    /// The operator's peak of resident memory so far, in MiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Waits until the operator has ended by itself. Returns whether it exited with 0.
    pub async fn ended(&mut self) -> bool {
        let child = &mut self.child;
        super::eventually("the operator ends", async || child.try_wait().unwrap()).await.success()
    }

    /// The user and system time that the operator has used, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.logged();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the operator's log ends with:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Runs `beatkeeper log-level` for a process. Returns the reason if the program refuses.
pub fn log_level(level: &str, pid: u32) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
    let output = command.args(["log-level", level, "--pid", &pid.to_string()]).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(()) } else { Err(why) }
}

/// Starts a process that the kernel kills when the test process ends in any way.
pub fn spawn_from_keeper(command: Command) -> Child {
    use std::sync::{Mutex, OnceLock, mpsc};
    type Job = (Command, mpsc::Sender<Child>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, next) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, done) in next {
                beatkeeper_cluster::die_with_this_thread(&mut command, false);
                done.send(command.spawn().unwrap()).unwrap();
            }
        });
        Mutex::new(jobs)
    });
    let (done, child) = mpsc::channel();
    keeper.lock().unwrap().send((command, done)).unwrap();
    child.recv().unwrap()
}
