//! The flags of leader election, by the names that Kubernetes' own components use.

use std::time::Duration;

use clap::ArgAction;

use beatkeeper_core::replica::leader::{Durations, DurationsError};

/// The flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaderArgs {
    /// Run several replicas, of which one leads and writes. The others watch and see every beat, too, so that a
    /// replica that takes over decides from its own observations.
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

    /// How long after the last renewal of a crashed leader another replica leads; it takes the Lease after 19/20 of this time.
    /// Prunes that are due in this time are late by up to as much, so the default is far below the usual 15s. A
    /// replica that loses the leadership for a moment loses no observations, and its late writes fail.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_LEASE_DURATION", default_value = "5s", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_lease_duration: Duration,

    /// How long a leader continues without an answer from the API server. Less than 19/20 of the lease duration, so
    /// that it has stopped before another replica takes over.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_RENEW_DEADLINE", default_value = "3s", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_renew_deadline: Duration,

    /// How often a leader renews its Lease, and the other replicas check it.
    #[arg(long, env = "BEATKEEPER_LEADER_ELECT_RETRY_PERIOD", default_value = "500ms", value_parser = beatkeeper_api::duration::parse)]
    pub leader_elect_retry_period: Duration,

    /// Name of the Lease by which the replicas elect the leader.
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
