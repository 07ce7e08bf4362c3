//! The story, chapter by chapter. Each chapter prints what it shows, with the figures of this run.

mod console;
mod explain;
mod gateways;
mod gentle;
mod hang;
mod install;
mod join;
mod leave;
mod operator;
mod outside;
mod rights;
mod rollout;
mod tools;
mod update;

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use clap::ValueEnum;

use crate::cluster::Cluster;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chapter {
    Install = 1,
    Join,
    Hang,
    Gentle,
    Operator,
    Rollout,
    Rights,
    Tools,
    Console,
    Gateways,
    Outside,
    Leave,
}

impl Chapter {
    /// Whether all other chapters need this one.
    pub(crate) fn is_built_on(self) -> bool {
        matches!(self, Self::Install | Self::Join)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Install => "helm install, helm test, and what the notes say",
            Self::Join => "three Pods join, and are called by name",
            Self::Hang => "one hangs, beside the same under plain Kubernetes",
            Self::Gentle => {
                "a rolling update, a drain, and 3 to 20 to 3 replicas, without a failed request"
            }
            Self::Operator => {
                "the operator and the kubelet end and come back, and no instance is pruned"
            }
            Self::Rollout => {
                "a roll-out waits until it is published, a registration is replaced, a selector removed"
            }
            Self::Rights => "which Pods may not beat for which instances",
            Self::Tools => "kubectl beatkeeper check, why, loglevel and support-bundle",
            Self::Console => "the console in the cluster, for a reader of one namespace",
            Self::Gateways => "beats through gateways, which are replaced, killed and removed",
            Self::Outside => "instances outside the cluster, and an agent that is updated",
            Self::Leave => "helm upgrade, rollback and uninstall, and what remains",
        }
    }

    pub(crate) async fn play(self, cluster: &Cluster) -> Result<()> {
        match self {
            Self::Install => install::play(cluster).await,
            Self::Join => join::play(cluster).await,
            Self::Hang => hang::play(cluster).await,
            Self::Gentle => gentle::play(cluster).await,
            Self::Operator => operator::play(cluster).await,
            Self::Rollout => rollout::play(cluster).await,
            Self::Rights => rights::play(cluster).await,
            Self::Tools => tools::play(cluster).await,
            Self::Console => console::play(cluster).await,
            Self::Gateways => gateways::play(cluster).await,
            Self::Outside => outside::play(cluster).await,
            Self::Leave => leave::play(cluster).await,
        }
    }
}

static LEFT_OUT: AtomicUsize = AtomicUsize::new(0);

/// Returns how many things could not be shown here.
pub(crate) fn count_left_out() -> usize {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Prints what cannot be shown here, so that the reader does not assume that it was shown.
fn left_out(what: &str, why: &str) {
    LEFT_OUT.fetch_add(1, Ordering::Relaxed);
    println!("   NOT SHOWN: {what}: {why}");
}

/// Prints the output of a program, indented.
fn quote(said: &str) {
    for line in said.trim_end().lines() {
        println!("   | {line}");
    }
}
