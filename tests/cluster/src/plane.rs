//! A running control plane, our own or that of another process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::audit::{self, AuditEntry, AuditMark};
use crate::client::{self, Credentials};
use crate::component::Component;
use crate::control::{self, ControlSocket};
use crate::folder::RunFolder;
use crate::options::{Options, Progress};
use crate::part::{self, Part, Ports};
use crate::pki::Pki;
use crate::ports::{self, Port};
use crate::ready;
use crate::supervisor::{Order, Orders, Status, Supervisor};
use crate::{binaries, cache, kubeconfig};

/// The default user agent of the clients made here.
const USER_AGENT: &str = "beatkeeper-cluster";

/// etcd, kube-apiserver and kube-controller-manager, ready for use.
///
/// A control plane that was started here ends when this value is dropped, and at the latest with its process,
/// however the process ends. An attached control plane keeps running.
pub struct ControlPlane {
    record: Record,
    data: PathBuf,
    owner: Owner,
}

/// What another process needs to attach.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    binaries: PathBuf,
    ports: Ports,
}

const RECORD: &str = "control-plane.json";

enum Owner {
    Us(Box<Ours>),
    /// A control plane of another process, found by its data folder.
    Another,
}

/// The fields are dropped in this order: no more orders are accepted, then the processes end, then their data is
/// removed.
struct Ours {
    _socket: ControlSocket,
    supervisor: Supervisor,
    folder: RunFolder,
    _ports: Vec<Port>,
}

impl ControlPlane {
    /// Starts a control plane. If the cache lacks binaries, it builds them first, which takes minutes.
    ///
    /// # Errors
    /// The error names what failed, the last lines of that process's log, and the path of the log. The log is kept
    /// for a day.
    pub async fn start(options: Options) -> Result<Self> {
        let progress = options.progress;
        let binaries = build_aside(progress).await?;
        // Another process may take a port between our choice and the binding.
        const TRIES: u32 = 3;
        for _ in 1..TRIES {
            match Self::try_start(&options, &binaries).await {
                Err(error) if is_port_conflict(&error) => {}
                result => return result,
            }
        }
        Self::try_start(&options, &binaries).await
    }

    async fn try_start(options: &Options, binaries: &Path) -> Result<Self> {
        let reserved = (0..4).map(|_| ports::reserve()).collect::<Result<Vec<_>>>()?;
        let ports = Ports {
            etcd: reserved[0].number,
            etcd_peer: reserved[1].number,
            api_server: reserved[2].number,
            controller_manager: reserved[3].number,
        };
        let folder = RunFolder::create(&match &options.runs {
            Some(runs) => runs.clone(),
            None => cache::root()?.join("run"),
        })?;
        let data = folder.path().to_owned();
        fs::create_dir(data.join("logs"))?;
        let pki = Pki::at(&data);
        pki.create(options.node_address).context("cannot make the control plane's certificates")?;
        kubeconfig::write(
            &data.join("kubeconfig"),
            &ports.url(Part::ApiServer),
            &pki.ca(),
            &pki.admin(),
        )?;
        let supervisor = Supervisor::new(part::recipes(&data, binaries, &ports, options)?)?;
        let record = Record { binaries: binaries.to_owned(), ports };
        fs::write(data.join(RECORD), serde_json::to_string(&record)?)?;
        let socket = ControlSocket::open(&data, supervisor.orders())?;
        let mut plane = Self {
            record,
            data,
            owner: Owner::Us(Box::new(Ours {
                _socket: socket,
                supervisor,
                folder,
                _ports: reserved,
            })),
        };
        if let Err(error) = plane.bring_up().await {
            if let Owner::Us(ours) = &mut plane.owner {
                ours.folder.keep_as_failed();
            }
            return Err(error);
        }
        Ok(plane)
    }

    async fn bring_up(&self) -> Result<()> {
        // The API server waits for etcd. The controller manager ends if there is no API server.
        self.order(Part::Etcd, Order::Start).await?;
        for (part, watched) in
            [(Part::ApiServer, &Part::ALL[..2]), (Part::ControllerManager, &Part::ALL[..])]
        {
            self.order(part, Order::Start).await?;
            ready::healthy(self, part, watched).await?;
        }
        ready::usable(self).await
    }

    /// Ends the processes of a control plane that was started here. Does not wait for their end.
    pub(crate) fn end(&self) {
        if let Owner::Us(ours) = &self.owner {
            ours.supervisor.end();
        }
    }

    /// Attaches to a control plane that another process runs: `beatkeeper-cluster exec` and `up` name its folder in
    /// `BEATKEEPER_TEST_CLUSTER`.
    ///
    /// # Errors
    /// If no control plane runs there any more.
    pub async fn attach(data: impl Into<PathBuf>) -> Result<Self> {
        let data = data.into();
        let record = fs::read_to_string(data.join(RECORD))
            .with_context(|| format!("{} is not the folder of a control plane", data.display()))?;
        let plane = Self { record: serde_json::from_str(&record)?, data, owner: Owner::Another };
        plane.order(Part::ApiServer, Order::Status).await?;
        Ok(plane)
    }

    /// Ends the processes and removes their data before it returns. Dropping does the same.
    pub async fn stop(self) -> Result<()> {
        tokio::task::spawn_blocking(move || drop(self))
            .await
            .context("the control plane could not be stopped")?;
        Ok(())
    }

    /// Returns etcd, so that a test can inject faults.
    pub fn etcd(&self) -> Component<'_> {
        Component::new(self, Part::Etcd)
    }

    /// Returns kube-apiserver, so that a test can inject faults.
    pub fn api_server(&self) -> Component<'_> {
        Component::new(self, Part::ApiServer)
    }

    /// Returns kube-controller-manager, so that a test can inject faults.
    pub fn controller_manager(&self) -> Component<'_> {
        Component::new(self, Part::ControllerManager)
    }

    /// Returns the path of an administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// Returns a kubeconfig, as JSON, with a token instead of an administrator's certificate. Its namespace is `default`,
    /// unless another is named.
    ///
    /// # Errors
    /// If the administrator's kubeconfig cannot be read.
    pub fn kubeconfig_with(&self, token: &str, namespace: Option<&str>) -> Result<String> {
        kubeconfig::with_token(&self.kubeconfig(), token, namespace)
    }

    /// Returns the folder with all files of this control plane. It is removed with the control plane.
    pub fn data_folder(&self) -> &Path {
        &self.data
    }

    /// Returns the path of the log of one process: all of its runs, one after the other.
    pub fn log(&self, part: Part) -> PathBuf {
        part::log(&self.data, part)
    }

    /// Returns the URL of the API server, or of another process.
    pub fn url(&self, part: Part) -> String {
        self.record.ports.url(part)
    }

    /// Returns the path of a binary of the control plane: `kubectl`, `etcd`, …
    pub fn bin(&self, name: &str) -> PathBuf {
        self.record.binaries.join(name)
    }

    /// Returns a kubectl command with an administrator's rights.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.bin("kubectl"));
        command.envs(self.environment());
        command
    }

    /// Returns the environment in which programs find this control plane: kubectl, `kube::Config::infer`,
    /// [`shared`](crate::shared()).
    pub fn environment(&self) -> Vec<(String, PathBuf)> {
        vec![
            ("KUBECONFIG".to_owned(), self.kubeconfig()),
            // kubectl caches an API server's resources by host and port, and ports are reused.
            ("KUBECACHEDIR".to_owned(), self.data.join("kubectl-cache")),
            (crate::ATTACH_VARIABLE.to_owned(), self.data.clone()),
        ]
    }

    /// Returns a client with all rights. It runs on the current runtime, as every client made here.
    pub fn admin_client(&self) -> Result<Client> {
        self.client_with_user_agent(USER_AGENT)
    }

    /// Returns a client with all rights that the audit log shows under `user_agent`.
    pub fn client_with_user_agent(&self, user_agent: &str) -> Result<Client> {
        self.client(Part::ApiServer, Credentials::Admin, user_agent)
    }

    /// Returns a client with the given token.
    pub fn client_with_token(&self, token: &str) -> Result<Client> {
        self.client(Part::ApiServer, Credentials::Token(token.to_owned()), USER_AGENT)
    }

    pub(crate) fn client(
        &self,
        part: Part,
        credentials: Credentials,
        user_agent: &str,
    ) -> Result<Client> {
        client::connect(&self.client_config(part, credentials, user_agent)?)
    }

    /// Returns the configuration of [`Self::admin_client`], for callers with an HTTP stack of their own.
    pub fn admin_config(&self, user_agent: &str) -> Result<kube::Config> {
        self.client_config(Part::ApiServer, Credentials::Admin, user_agent)
    }

    fn client_config(
        &self,
        part: Part,
        credentials: Credentials,
        user_agent: &str,
    ) -> Result<kube::Config> {
        client::config(&Pki::at(&self.data), &self.record.ports, part, credentials, user_agent)
    }

    /// Returns the API server's metrics, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String> {
        ready::get(&self.admin_client()?, "/metrics").await
    }

    /// Returns all writes so far that match the filter, in the order in which they were answered.
    pub async fn audit(&self, filter: impl Fn(&AuditEntry) -> bool) -> Result<Vec<AuditEntry>> {
        let mut entries = self.audit_since(AuditMark(0)).await?;
        entries.retain(|entry| filter(entry));
        Ok(entries)
    }

    /// Marks the position in the audit log after everything answered so far.
    pub async fn audit_mark(&self) -> Result<AuditMark> {
        audit::mark(&self.data)
    }

    /// Returns all writes answered between the mark and now.
    pub async fn audit_since(&self, mark: AuditMark) -> Result<Vec<AuditEntry>> {
        audit::read(&self.data, mark)
    }

    pub(crate) async fn order(&self, part: Part, order: Order) -> Result<Status> {
        match &self.owner {
            Owner::Us(ours) => give(&ours.supervisor.orders(), part, order).await,
            Owner::Another => control::give(&self.data, part, order).await,
        }
    }
}

/// Runs the build on a thread that no runtime waits for. A process that is asked to end during a build therefore
/// ends at once, and the compiler ends with it.
async fn build_aside(progress: Progress) -> Result<PathBuf> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("build".to_owned())
        .spawn(move || done.send(binaries::folder(progress)))?;
    result.await.context("the build of the control plane's binaries panicked")?
}

async fn give(orders: &Orders, part: Part, order: Order) -> Result<Status> {
    orders.give(part, order).await.unwrap_or_else(|_| Err(anyhow!("the control plane has ended")))
}

/// Whether a port was taken. etcd, kube-apiserver and kube-controller-manager use the same message, because all are
/// written in Go.
fn is_port_conflict(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}
