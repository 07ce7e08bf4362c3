//! The options of a control plane.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// How to start a control plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether etcd syncs each write to disk. Default false: a power failure loses no data that tests need.
    pub fsync: bool,
    /// Whether the API server logs all writes, for [`ControlPlane::audit`](crate::ControlPlane::audit). Default
    /// true.
    pub audit: bool,
    /// Whether Services may ask for IPv6 addresses beside IPv4 addresses. Default true. A Service that does not ask
    /// gets only IPv4.
    pub dual_stack: bool,
    /// Further flags of kube-apiserver (`--name=value`). They come last and override earlier ones.
    pub api_server_flags: Vec<String>,
    /// Further flags of kube-controller-manager (`--name=value`). They come last and override earlier ones.
    pub controller_manager_flags: Vec<String>,
    /// The address at which Pods of a real node reach the API server. If it is set, the API server listens on all
    /// addresses, the Service `kubernetes` leads to this address, and all controllers run. Default `None`: only
    /// this machine reaches the API server, and there are no nodes.
    pub node_address: Option<Ipv4Addr>,
    /// The folder in which the data folder is made. Default `None`: in the user's cache.
    pub runs: Option<PathBuf>,
    /// Where the progress of a build of the binaries is reported; a build takes minutes. Default
    /// [`Progress::Terminal`].
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: false,
            audit: true,
            dual_stack: true,
            api_server_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            node_address: None,
            runs: None,
            progress: Progress::Terminal,
        }
    }
}

/// Where the progress of a build is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nowhere.
    Quiet,
    /// To stderr: a spinner if stderr is a terminal, otherwise plain lines.
    Terminal,
}
