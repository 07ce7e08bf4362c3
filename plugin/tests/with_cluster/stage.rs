//! A namespace with an operator, instances that beat, and the plugin.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    time::{Duration, Instant},
};

use beatkeeper_cluster::{ControlPlane, die_with_this_thread, shared};
use tokio::net::TcpSocket;

/// The longest wait of a test. What is awaited normally comes within a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A user without rights, as a subject of RBAC.
pub const ANN: &str = "{ apiGroup: rbac.authorization.k8s.io, kind: User, name: ann }";

/// A namespace for one test, with its operator.
pub struct Stage {
    pub plane: &'static ControlPlane,
    pub namespace: String,
    children: Vec<(String, Child)>,
    metrics: Option<(TcpSocket, SocketAddr)>,
}

/// What the plugin has printed.
#[derive(Debug)]
pub struct Printed {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Stage {
    /// A namespace without an operator.
    pub async fn without_operator(prefix: &str) -> Self {
        let plane = shared().await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        let namespace = plane.namespace(prefix).await.unwrap();
        Self::on(plane, &namespace)
    }

    /// A namespace of a control plane, as it is.
    pub fn on(plane: &'static ControlPlane, namespace: &str) -> Self {
        Self { plane, namespace: namespace.to_owned(), children: Vec::new(), metrics: None }
    }

    /// A namespace whose operator may publish documentation addresses.
    pub async fn new(prefix: &str) -> Self {
        Self::with_operator(prefix, |_| Vec::new()).await
    }

    async fn with_operator(prefix: &str, more: impl FnOnce(&str) -> Vec<String>) -> Self {
        let mut stage = Self::without_operator(prefix).await;
        let more = more(&stage.namespace);
        stage.operate(&more.iter().map(String::as_str).collect::<Vec<_>>());
        stage
    }

    /// Starts the operator of the namespace, with these flags besides its usual ones.
    pub fn operate(&mut self, more: &[&str]) {
        let namespace = self.namespace.clone();
        let range = format!("--outside-range={namespace}=192.0.2.0/24");
        let wider = format!("--outside-range={namespace}=198.18.0.0/15");
        // With a network of the cluster, the operator ignores the addresses in other namespaces.
        let network = "--cluster-network=203.0.113.0/24";
        let words = ["controller", "--namespace", &namespace, &range, &wider, network];
        self.start("operator", &[&words[..], more].concat());
    }

    /// The same, with an operator that takes part in an election and serves metrics.
    pub async fn electing(prefix: &str) -> Self {
        Self::electing_with(prefix, &[]).await
    }

    /// The same, with further flags of the operator.
    pub async fn electing_with(prefix: &str, flags: &[&str]) -> Self {
        let (port, metrics) = kept_port();
        let bind = format!("--metrics-bind-address={metrics}");
        let mut stage = Self::with_operator(prefix, |namespace| {
            let election = format!("--leader-elect-resource-namespace={namespace}");
            let flags = flags.iter().map(|&flag| flag.to_owned());
            ["--leader-elect".to_owned(), election, bind].into_iter().chain(flags).collect()
        })
        .await;
        stage.metrics = Some((port, metrics));
        stage
    }

    /// Where the operator's metrics are.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.metrics.as_ref().unwrap().1)
    }

    /// Creates a registration: ttl 3s, interval 1s, port grpc 80 → 8080, any Pod. `more` is further YAML of its spec.
    pub fn register(&self, name: &str, more: &str) {
        let object = format!(
            "apiVersion: beatkeeper.dev/v1alpha1\nkind: ServiceRegistration\nmetadata: {{ name: {name} }}\nspec:\n  \
             ttl: 3s\n  interval: 1s\n  ports: [{{ name: grpc, port: 80, targetPort: 8080 }}]\n  podSelector: {{}}\n{more}"
        );
        self.apply(&object);
    }

    /// Creates a registration with this ttl and this interval.
    pub fn declare(&self, name: &str, ttl: &str, interval: &str) {
        self.apply(&format!(
            "apiVersion: beatkeeper.dev/v1alpha1\nkind: ServiceRegistration\nmetadata: {{ name: {name} }}\nspec:\n  \
             ttl: {ttl}\n  interval: {interval}\n  ports: [{{ name: http, port: 80, targetPort: 8080 }}]\n"
        ));
    }

    /// Starts one agent that beats for many instances. `address` gives the address of each.
    pub fn fleet(
        &mut self,
        name: &str,
        registration: &str,
        count: usize,
        address: impl Fn(usize) -> String,
    ) {
        let namespace = self.namespace.clone();
        let instance =
            |n| format!("- {{ instance: {registration}-{n:04}, addresses: [{}] }}\n", address(n));
        let all: String = (0..count).map(instance).collect();
        let text =
            format!("registration: {registration}\nnamespace: {namespace}\ninstances:\n{all}");
        let file = std::env::temp_dir().join(format!("kubectl-beatkeeper-{namespace}-{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        self.start(name, &["agent", "run", "--config", file.to_str().unwrap()]);
    }

    /// Applies objects.
    pub fn apply(&self, objects: &str) {
        let mut command = self.plane.kubectl();
        command.args(["-n", &self.namespace, "apply", "-f", "-"]);
        self.feed(command, objects);
    }

    /// Runs a command that reads objects.
    pub fn feed(&self, mut command: Command, objects: &str) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "not applied:\n{objects}");
    }

    /// Creates a Pod with the label app, which its kubelet reports as running and ready.
    pub fn pod(&self, name: &str, app: &str, address: &str) {
        let node = format!("node-of-{}", self.namespace);
        // The cluster's controllers take a Pod without its Node for one that is gone.
        self.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{ name: {node} }}\n---\napiVersion: v1\nkind: Pod\n\
             metadata: {{ name: {name}, labels: {{ app: {app} }} }}\n\
             spec: {{ nodeName: {node}, containers: [{{ name: main, image: none }}] }}\n"
        ));
        let holds = |type_: &str| format!("{{\"type\":\"{type_}\",\"status\":\"True\"}}");
        let status = format!(
            "{{\"status\":{{\"phase\":\"Running\",\"podIP\":\"{address}\",\"podIPs\":[{{\"ip\":\"{address}\"}}],\
             \"conditions\":[{},{}]}}}}",
            holds("ContainersReady"),
            holds("Ready")
        );
        self.kubectl(&[
            "patch",
            "pod",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ]);
    }

    /// Lets a subject of RBAC read what the rules name. Both are written as YAML on one line.
    pub fn grant(&self, subject: &str, rules: &[&str]) {
        let rules: String = rules.iter().map(|rule| format!("- {rule}\n")).collect();
        self.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{ name: reader }}\nrules:\n{rules}---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{ name: reader }}\n\
             roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader }}\nsubjects: [{subject}]\n"
        ));
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, words: &[&str]) {
        let mut command = self.plane.kubectl();
        command.args(["-n", &self.namespace]).args(words).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "kubectl {words:?}");
    }

    /// What kubectl prints in the namespace.
    pub fn read(&self, words: &[&str]) -> String {
        let mut command = self.plane.kubectl();
        command.args(["-n", &self.namespace]).args(words);
        let printed = printed(command);
        assert_eq!(printed.code, 0, "kubectl {words:?}: {printed:?}");
        printed.out
    }

    /// The annotations of a Lease.
    pub fn annotations(&self, lease: &str) -> serde_json::Value {
        let lease = self.read(&["get", "lease", lease, "-o", "json"]);
        let lease: serde_json::Value = serde_json::from_str(&lease).unwrap();
        lease["metadata"]["annotations"].clone()
    }

    /// Starts an agent that beats for an instance of `greeter`.
    pub fn agent(&mut self, instance: &str, address: &str) {
        let namespace = self.namespace.clone();
        let words = ["agent", "run", "--registration", "greeter", "--namespace", &namespace];
        let own = ["--instance", instance, "--address", address];
        self.start(instance, &[&words[..], &own].concat());
    }

    /// Kills a process with SIGKILL. Returns when that was.
    pub fn kill(&mut self, name: &str) -> Instant {
        let place = self.children.iter().position(|(known, _)| known == name).unwrap();
        let (_, mut child) = self.children.remove(place);
        child.kill().unwrap();
        let at = Instant::now();
        child.wait().unwrap();
        at
    }

    /// Starts the program `beatkeeper`.
    pub fn start(&mut self, name: &str, words: &[&str]) {
        self.start_with(name, words, &[]);
    }

    /// Starts the program `beatkeeper` with further environment variables.
    pub fn start_with(&mut self, name: &str, words: &[&str], variables: &[(&str, &str)]) {
        let mut command = Command::new(beatkeeper());
        command.args(words).env("KUBECONFIG", self.plane.kubeconfig()).env_remove("POD_NAME");
        command.envs(variables.iter().copied());
        let log =
            std::env::temp_dir().join(format!("kubectl-beatkeeper-{}-{name}.log", self.namespace));
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.children.push((name.to_owned(), spawn(command)));
    }

    /// A command that runs the plugin in the namespace.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
        command.args(words).args(["--namespace", &self.namespace]);
        command.env("KUBECONFIG", self.plane.kubeconfig()).stdin(Stdio::null());
        command
    }

    /// Runs the plugin in the namespace.
    pub fn plugin(&self, words: &[&str]) -> Printed {
        printed(self.command(words))
    }

    /// Runs the plugin until its standard output is as wanted.
    pub fn until(&self, words: &[&str], what: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let printed = self.plugin(words);
            if wanted(&printed.out) { Ok(printed.out) } else { Err(format!("{printed:?}")) }
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks until it finds what is awaited. What it sees instead is in the message of the panic after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => {
                assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {seen}");
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that no other process gets while the socket is kept. Nothing listens there until a process of the test does.
pub fn kept_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    // Without this, a process could not bind it beside the socket.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Runs a command to its end.
pub fn printed(mut command: Command) -> Printed {
    let output = command.output().unwrap();
    Printed {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program `beatkeeper`, which cargo builds beside the plugin.
fn beatkeeper() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
    let program = program.with_file_name("beatkeeper");
    assert!(program.exists(), "{} is missing: build it with scripts/build", program.display());
    program
}

/// Starts a process that the kernel kills when this process ends. The thread that starts it lives as long.
pub fn spawn(command: Command) -> Child {
    type Job = (Command, mpsc::Sender<Child>);
    static STARTER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, next) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, done) in next {
                die_with_this_thread(&mut command, false);
                done.send(command.spawn().unwrap()).unwrap();
            }
        });
        Mutex::new(jobs)
    });
    let (done, child) = mpsc::channel();
    starter.lock().unwrap().send((command, done)).unwrap();
    child.recv().unwrap()
}
