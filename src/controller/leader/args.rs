//! The flags of leader election, by the names that Kubernetes' own components use.

use std::time::Duration;

use clap::ArgAction;

use beatkeeper_core::leader::{Durations, DurationsError};

/// The flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaderArgs {
    /// Let several replicas run, of which one leads and writes. The others watch and observe every
    /// beat all the time, so that whichever takes over decides from what it saw itself.
    #[arg(
        long,
        env = "BEATKEEPER_LEADER_ELECT",
        default_value_t = false,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub leader_elect: bool,

    /// Within which time after the last sign of life of a crashed leader another replica takes over: it
    /// claims after 19/20 of it. This is
    /// added to every deadline that falls into that time, so it is far below the usual 15s: a
    /// replica that loses its claim for a moment goes on observing and loses nothing by it, and a
    /// late write of its own fails.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_LEASE_DURATION", default_value = "5s", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_lease_duration: Duration,

    /// How long a leader goes on without an answer from the API server. Less than 19/20 of the lease
    /// duration, so that it has stopped before another takes over.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_RENEW_DEADLINE", default_value = "3s", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_renew_deadline: Duration,

    /// How often a leader renews its claim, and the others look at it.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_RETRY_PERIOD", default_value = "500ms", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_retry_period: Duration,

    /// Name of the Lease that the replicas share.
    #[arg(
        long,
        env = "BEATKEEPER_LEADER_ELECT_RESOURCE_NAME",
        value_name = "NAME",
        default_value = "beatkeeper"
    )]
    pub leader_elect_resource_name: String,

    /// Namespace of that Lease. Default: POD_NAMESPACE, or else the kubeconfig's namespace.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_RESOURCE_NAMESPACE", value_name = "NAMESPACE")]
    pub leader_elect_resource_namespace: Option<String>,
}

/// The settings of leader election.
#[derive(Debug, Clone)]
pub struct ElectionSettings {
    /// The timing of the election.
    pub durations: Durations,
    /// The name of the election's Lease.
    pub name: String,
    /// The namespace of that Lease; None for the namespace of the operator.
    pub namespace: Option<String>,
}

impl LeaderArgs {
    /// The settings that these flags ask for; None without leader election.
    ///
    /// # Errors
    /// [`DurationsError`] if the durations do not fit together.
    pub(in crate::controller) fn settings(
        self,
    ) -> Result<Option<ElectionSettings>, DurationsError> {
        let Self {
            leader_elect,
            leader_elect_lease_duration,
            leader_elect_renew_deadline,
            leader_elect_retry_period,
            leader_elect_resource_name: name,
            leader_elect_resource_namespace: namespace,
        } = self;
        // The durations are checked even without leader election, so that a mistake is found before it is
        // turned on.
        let durations = Durations::new(
            leader_elect_lease_duration,
            leader_elect_renew_deadline,
            leader_elect_retry_period,
        )?;
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        Ok(leader_elect.then_some(ElectionSettings { durations, name, namespace }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        leader: LeaderArgs,
    }

    fn settings(flags: &[&str]) -> Result<Option<ElectionSettings>, DurationsError> {
        let line = std::iter::once("beatkeeper").chain(flags.iter().copied());
        Line::try_parse_from(line).expect("a command line").leader.settings()
    }

    #[test]
    fn without_the_flag_there_is_no_election() {
        assert!(settings(&[]).expect("valid").is_none());
        assert!(settings(&["--leader-elect=false"]).expect("valid").is_none());
    }

    #[test]
    fn the_flag_alone_elects_with_defaults_that_fit_together() {
        for flag in ["--leader-elect", "--leader-elect=true"] {
            let settings = settings(&[flag]).expect("valid").expect("an election");
            assert_eq!(settings.durations.lease_seconds(), 5);
            assert_eq!(settings.name, "beatkeeper");
            assert_eq!(settings.namespace, None);
        }
    }

    #[test]
    fn durations_that_cannot_work_are_refused() {
        assert!(settings(&["--leader-elect-lease-duration", "2s"]).is_err());
    }
}
