//! The arguments that several subcommands share.

use std::path::PathBuf;

use clap::Args;

use super::settings::Settings;

/// Which instances beat, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct BeatArgs {
    #[command(flatten)]
    pub(super) settings: Box<Settings>,
    /// Read settings from this YAML file, and again at SIGHUP; flags and variables override it.
    #[arg(long, env = "BEATKEEPER_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print every beat.
    #[arg(long, short, env = "BEATKEEPER_VERBOSE")]
    pub(super) verbose: bool,
}

/// A registered instance.
#[derive(Debug, Clone, Args)]
pub(super) struct InstanceArgs {
    /// Name of the ServiceRegistration.
    #[arg(long, env = "BEATKEEPER_REGISTRATION", value_name = "NAME")]
    pub(super) registration: String,
    /// Its namespace [default: that of the kubeconfig's context, or of the agent's Pod].
    #[arg(long, short, env = "BEATKEEPER_NAMESPACE", value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// Name of the instance [default: $POD_NAME, or else the host name].
    #[arg(long, env = "BEATKEEPER_INSTANCE", value_name = "NAME")]
    pub(super) instance: Option<String>,
}
