//! What the heart tells of itself.

use std::fmt;
use std::time::Duration;

use beatkeeper_api::duration;
use jiff::Timestamp;

use super::failure::Failure;
use super::schedule::Pace;

/// Something that happened. Displayed as one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The Lease is ours and has had its first beat.
    Claimed {
        /// `namespace/registration`
        registration: String,
        /// Name of the instance.
        instance: String,
        /// How often it beats from here on.
        pace: Pace,
        /// How the Lease came to be ours.
        how: How,
    },
    /// A beat was accepted.
    Beat {
        /// The renewTime it carried.
        at: Timestamp,
        /// From sending to the answer.
        took: Duration,
    },
    /// Beats are accepted again.
    Recovered {
        /// Since the last success.
        after: Duration,
    },
    /// Something failed and will be tried again.
    Failed {
        /// What, and why.
        failure: Failure,
        /// Until the next try.
        retry_in: Duration,
    },
    /// The registration could not be read again; the pace stays as it is.
    NotReread(Failure),
    /// The registration says something else than before.
    PaceChanged(Pace),
    /// Who started us asked for a slower pace than the registration's, and does not get it.
    TooSlow {
        /// What was asked for.
        wanted: Duration,
        /// The registration's pace.
        pace: Pace,
    },
    /// The Lease vanished, or is no heartbeat of ours any more: it is claimed anew.
    Lost {
        /// `namespace/name`
        lease: String,
    },
    /// The Lease is gone, and with it the instance, at once.
    Deregistered {
        /// `namespace/name`
        lease: String,
    },
    /// There was nothing to deregister.
    NeverRegistered,
}

/// How a Lease came to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was created.
    Created,
    /// It was left by an earlier life of the same instance.
    TakenOver,
    /// It took the place of an earlier Pod's.
    Replaced,
}

/// How much an event matters to who runs the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Every single beat.
    Detail,
    /// A change.
    Change,
    /// Something to look into.
    Trouble,
}

impl Event {
    /// How much it matters.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Beat { .. } => Weight::Detail,
            Self::Claimed { .. }
            | Self::Recovered { .. }
            | Self::PaceChanged(_)
            | Self::Deregistered { .. }
            | Self::NeverRegistered => Weight::Change,
            Self::Failed { .. } | Self::NotReread(_) | Self::TooSlow { .. } | Self::Lost { .. } => {
                Weight::Trouble
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed { registration, instance, pace, how } => {
                let how = match how {
                    How::Created => "",
                    How::TakenOver => ", with the Lease of its earlier life",
                    How::Replaced => ", with a new Lease in place of an earlier Pod's",
                };
                write!(f, "beating as {instance} for {registration} {pace}{how}")
            }
            Self::Beat { at, took } => {
                let at = beatkeeper_api::heartbeat::renew_time(*at);
                write!(f, "beat {at} accepted in {:.1}ms", took.as_secs_f64() * 1000.0)
            }
            Self::Recovered { after } => {
                write!(
                    f,
                    "beating again, {} after the last accepted beat",
                    duration::format(*after)
                )
            }
            Self::Failed { failure, retry_in } => {
                write!(f, "{failure}; retrying in {}", duration::format(*retry_in))
            }
            Self::NotReread(failure) => write!(f, "{failure}; beating on at the same pace"),
            Self::PaceChanged(pace) => {
                write!(f, "the registration has changed: now beating {pace}")
            }
            Self::TooSlow { wanted, pace } => write!(
                f,
                "--interval {} is slower than the registration asks for: beating every {}",
                duration::format(*wanted),
                duration::format(pace.interval()),
            ),
            Self::Lost { lease } => {
                write!(f, "the Lease {lease} was deleted or changed by somebody: claiming it again")
            }
            Self::Deregistered { lease } => write!(f, "deregistered: deleted the Lease {lease}"),
            Self::NeverRegistered => write!(f, "stopped; there was nothing to deregister"),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interval, ttl) = (duration::format(self.interval()), duration::format(self.ttl()));
        write!(f, "every {interval} (ttl {ttl})")
    }
}
