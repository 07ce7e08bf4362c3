//! The flags that several commands share, named as in kubectl.

use std::path::PathBuf;

use beatkeeper_client::transport::{ActAs, Choice};
use clap::{Args, ValueEnum};

/// How to reach the cluster, and as which user.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionFlags {
    /// The namespace to look at. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig. Default: its current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, or else ~/.kube/config, or else the ServiceAccount of the Pod.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Send all requests for this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub act_as: Option<String>,
    /// Send all requests for this group; may be repeated. Needs --as.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub act_as_groups: Vec<String>,
}

impl ConnectionFlags {
    /// The flags as the choice of a connection.
    pub fn choice(&self) -> Choice {
        Choice {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            act_as: ActAs { user: self.act_as.clone(), groups: self.act_as_groups.clone() },
        }
    }
}

/// Which registrations to look at.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Name of the registration. Default: all of the namespace.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Look at all namespaces, whatever --namespace says.
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// Look only at registrations with these labels, such as app=greeter.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
    pub selector: Option<String>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// More columns, and messages in full.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// Only the names, as kubectl takes them.
    Name,
}

/// Whether a change is made, as in kubectl.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Make the change.
    #[default]
    None,
    /// Send it to the API server, which checks it and does not store it.
    Server,
    /// Send nothing that changes something.
    Client,
}

impl DryRun {
    /// What kubectl writes behind a result.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Server => " (server dry run)",
            Self::Client => " (dry run)",
        }
    }
}

/// How a change is made.
#[derive(Debug, Clone, Default, Args)]
pub struct ChangeFlags {
    /// Only say what would be changed.
    #[arg(long, value_enum, value_name = "WHERE", default_value_t, require_equals = true)]
    pub dry_run: DryRun,
}

/// How a change is made that takes an instance out of service.
#[derive(Debug, Clone, Default, Args)]
pub struct RemovalFlags {
    /// Do it also if fewer ready instances than minReady, or none, are left.
    #[arg(short, long)]
    pub yes: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeFlags,
}
