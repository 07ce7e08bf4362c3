//! What can be chosen about a control plane.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// How to start a control plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// etcd syncs each write to disk. Default false: tests lose nothing that matters when the machine loses power.
    pub fsync: bool,
    /// The API server logs all writes, for [`ControlPlane::audit`](crate::ControlPlane::audit). Default true.
    pub audit: bool,
    /// Services may ask for IPv6 addresses beside IPv4 ones. Default true; a Service that does not ask is IPv4 alone.
    pub dual_stack: bool,
    /// Further flags of kube-apiserver (`--name=value`); they come last and win.
    pub api_server_flags: Vec<String>,
    /// Further flags of kube-controller-manager (`--name=value`); they come last and win.
    pub controller_manager_flags: Vec<String>,
    /// Where Pods of a real node reach the API server; it then listens on all addresses, is what the Service
    /// `kubernetes` leads to, and all controllers run. Default none: only this machine reaches it, without nodes.
    pub node_address: Option<Ipv4Addr>,
    /// The folder below which the data folder is made. Default none: in the user's cache.
    pub runs: Option<PathBuf>,
    /// Who hears of a build of the binaries, which takes minutes. Default [`Progress::Terminal`].
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

/// Where progress of a build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nowhere.
    Quiet,
    /// To stderr: a spinner where that is a terminal, plain lines where it is not.
    Terminal,
}
