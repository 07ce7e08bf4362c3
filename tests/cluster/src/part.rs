//! The three processes of a control plane and their command lines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::kubeconfig;
use crate::options::Options;
use crate::pki::Pki;

/// One process of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controllers of Kubernetes, in one process.
    ControllerManager,
}

impl Part {
    /// The processes, in the order in which they are started.
    pub const ALL: [Part; 3] = [Part::Etcd, Part::ApiServer, Part::ControllerManager];

    /// The name of the binary, and of the log below `logs/`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Etcd => "etcd",
            Part::ApiServer => "kube-apiserver",
            Part::ControllerManager => "kube-controller-manager",
        }
    }

    /// Returns the path that answers 200 once the process works.
    pub(crate) fn health_path(self) -> &'static str {
        match self {
            Part::Etcd => "/health",
            Part::ApiServer => "/readyz",
            Part::ControllerManager => "/healthz",
        }
    }
}

/// The ports of 127.0.0.1 that a control plane listens on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) api_server: u16,
    pub(crate) controller_manager: u16,
}

impl Ports {
    pub(crate) fn url(&self, part: Part) -> String {
        match part {
            Part::Etcd => format!("http://127.0.0.1:{}", self.etcd),
            Part::ApiServer => format!("https://127.0.0.1:{}", self.api_server),
            Part::ControllerManager => format!("https://127.0.0.1:{}", self.controller_manager),
        }
    }
}

/// How to start one process. Each start uses the same program, ports and data.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) part: Part,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) log: PathBuf,
}

/// Returns the path of a process's log below the data folder.
pub(crate) fn log(data: &Path, part: Part) -> PathBuf {
    data.join("logs").join(format!("{}.log", part.name()))
}

/// Returns the command lines of all three processes, in the order of [`Part::ALL`].
pub(crate) fn recipes(
    data: &Path,
    binaries: &Path,
    ports: &Ports,
    options: &Options,
) -> Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for part in Part::ALL {
        let flags = match part {
            Part::Etcd => etcd(data, ports, options),
            Part::ApiServer => api_server(data, ports, options)?,
            Part::ControllerManager => controller_manager(data, ports, options)?,
        };
        recipes.push(Recipe {
            part,
            program: binaries.join(part.name()),
            arguments: flags.0,
            log: log(data, part),
        });
    }
    Ok(recipes)
}

#[derive(Default)]
struct Flags(Vec<OsString>);

impl Flags {
    fn set(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value);
        self.0.push(flag);
        self
    }
}

fn etcd(data: &Path, ports: &Ports, options: &Options) -> Flags {
    let mut flags = Flags::default();
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    flags
        .set("data-dir", data.join("etcd"))
        .set("listen-client-urls", ports.url(Part::Etcd))
        .set("advertise-client-urls", ports.url(Part::Etcd))
        .set("listen-peer-urls", &peer)
        .set("initial-advertise-peer-urls", &peer)
        .set("initial-cluster", format!("default={peer}"))
        // Benchmarks write more than the default 2 GiB before the first compaction.
        .set("quota-backend-bytes", "8589934592")
        // In milliseconds. A single member waits for no other member, and short times save half a second of each
        // start.
        .set("heartbeat-interval", "20")
        .set("election-timeout", "200");
    if !options.fsync {
        flags.0.push("--unsafe-no-fsync".into());
    }
    flags
}

fn api_server(data: &Path, ports: &Ports, options: &Options) -> Result<Flags> {
    let pki = Pki::at(data);
    let serving = pki.serving();
    let mut flags = Flags::default();
    flags
        .set("etcd-servers", ports.url(Part::Etcd))
        .set("bind-address", "127.0.0.1")
        // By default the address is derived from the default route, which not every machine has. No client uses
        // this address, because the `kubernetes` Service gets no endpoints.
        .set("advertise-address", "192.0.2.1")
        .set("endpoint-reconciler-type", "none")
        .set("secure-port", ports.api_server.to_string())
        .set("cert-dir", data.join("pki"))
        .set("tls-cert-file", serving.certificate)
        .set("tls-private-key-file", serving.key)
        .set("client-ca-file", pki.ca())
        .set("service-account-issuer", "https://kubernetes.default.svc.cluster.local")
        .set("service-account-key-file", pki.service_account_public())
        .set("service-account-signing-key-file", pki.service_account_key())
        .set("service-cluster-ip-range", service_ranges(options))
        .set("authorization-mode", "Node,RBAC");
    if let Some(address) = options.node_address {
        let admin = pki.admin();
        flags
            .set("bind-address", "0.0.0.0")
            .set("advertise-address", address.to_string())
            .set("endpoint-reconciler-type", "lease")
            .set("kubelet-preferred-address-types", "InternalIP")
            .set("kubelet-client-certificate", admin.certificate)
            .set("kubelet-client-key", admin.key);
    }
    if options.audit {
        crate::audit::write_policy(data)?;
        flags
            .set("audit-policy-file", crate::audit::policy_file(data))
            .set("audit-log-path", crate::audit::log_file(data))
            // An entry is written before its request counts as done.
            .set("audit-log-mode", "blocking")
            // In MiB. Zero would rotate at 100 MiB, and marks are offsets into one file.
            .set("audit-log-maxsize", "1048576");
    }
    flags.0.extend(options.api_server_flags.iter().map(OsString::from));
    Ok(flags)
}

fn service_ranges(options: &Options) -> &'static str {
    // The first range is the default: a Service that does not ask for more gets only IPv4.
    if options.dual_stack { "10.96.0.0/16,fd00:10:96::/112" } else { "10.96.0.0/16" }
}

fn controller_manager(data: &Path, ports: &Ports, options: &Options) -> Result<Flags> {
    let pki = Pki::at(data);
    let serving = pki.serving();
    let kubeconfig = data.join("controller-manager.kubeconfig");
    kubeconfig::write(
        &kubeconfig,
        &ports.url(Part::ApiServer),
        &pki.ca(),
        &pki.controller_manager(),
    )?;
    let mut flags = Flags::default();
    flags
        .set("kubeconfig", kubeconfig)
        .set("bind-address", "127.0.0.1")
        .set("secure-port", ports.controller_manager.to_string())
        .set("tls-cert-file", serving.certificate)
        .set("tls-private-key-file", serving.key)
        .set("service-account-private-key-file", pki.service_account_key())
        .set("root-ca-file", pki.ca())
        .set("use-service-account-credentials", "true")
        .set("leader-elect", "false")
        .set("controllers", if options.node_address.is_some() { "*" } else { CONTROLLERS })
        // With the default of 20 requests per second, each start would wait four seconds for the controllers' own
        // accounts.
        .set("kube-api-qps", "500")
        .set("kube-api-burst", "1000");
    flags.0.extend(options.controller_manager_flags.iter().map(OsString::from));
    Ok(flags)
}

/// All default controllers except those that would delete or taint Pods on nodes that do not exist: tests make Pods
/// without a kubelet.
const CONTROLLERS: &str =
    "*,-pod-garbage-collector-controller,-node-lifecycle-controller,-taint-eviction-controller";
