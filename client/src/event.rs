//! The events that a heartbeat loop reports.

mod carrier;

use std::fmt;
use std::time::Duration;

use beatkeeper_api::{Carrier, duration, text::plain};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::lease::HealthReport;
use crate::publication::Publication;
use crate::schedule::Pace;
pub use carrier::CarrierEvent;

/// Something that happened. It is displayed as one line for people. Text from other sources is made safe to
/// print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The Lease is ours and has had its first beat.
    Claimed {
        /// `namespace/registration`
        registration: String,
        /// Name of the instance.
        instance: String,
        /// The pace of the beats from now on.
        pace: Pace,
        /// How the Lease became ours.
        how: Acquisition,
    },
    /// A beat was accepted.
    Beat {
        /// The renewTime it carried; through a gateway, when it was sent.
        at: Timestamp,
        /// From sending the beat to the answer.
        took: Duration,
        /// From when the beat was due until it was sent. Tries that failed before count.
        late: Duration,
        /// The way that it took.
        carrier: Carrier,
    },
    /// Beats are accepted again.
    Recovered {
        /// The time since the last success.
        after: Duration,
    },
    /// Something failed and will be tried again.
    Failed {
        /// What failed, and why.
        failure: Failure,
        /// The time until the next try.
        retry_in: Duration,
    },
    /// The registration could not be read again; the pace stays as it is.
    RereadFailed(Failure),
    /// The registration now has another pace.
    PaceChanged(Pace),
    /// The caller asked for a longer interval than the registration's, and does not get it.
    IntervalTooLong {
        /// The interval that the caller asked for.
        wanted: Duration,
        /// The registration's pace.
        pace: Pace,
    },
    /// The caller relies on a longer ttl than the registration's.
    TtlTooLong {
        /// The ttl that the caller relies on.
        wanted: Duration,
        /// The registration's pace.
        pace: Pace,
    },
    /// The operator treats the instance differently than before, according to the status of the registration.
    Publication {
        /// How the operator treats the instance now.
        publication: Publication,
        /// The time since the first beat.
        after: Duration,
    },
    /// A new health report of the instance was accepted.
    HealthReported(HealthReport),
    /// A beat was sent later than it was due, because this process was kept from running.
    Late {
        /// How late the beat was.
        by: Duration,
    },
    /// No beat was accepted for longer than the ttl. The instance was pruned meanwhile, unless the path of
    /// all beats to the operator was interrupted. The next beat publishes it again.
    SilentForTtl {
        /// The time since the last beat that was accepted before.
        silent: Duration,
        /// The ttl of the registration.
        ttl: Duration,
    },
    /// The wall clock differs from the API server's. Beats do not depend on it, but bearer tokens do, and it
    /// misleads people.
    ClockOff {
        /// Seconds by which ours is ahead; negative when it is behind.
        ahead: i64,
    },
    /// The Lease vanished, or is no heartbeat of ours any more. We claim it anew.
    LeaseLost {
        /// `namespace/name`
        lease: String,
    },
    /// Another process has taken the Lease over, under the same name.
    TakenOverByOther {
        /// `namespace/name`
        lease: String,
        /// The addresses that the other process claims, if they differ from ours: then they are published,
        /// and this process stands by.
        other_addresses: Option<String>,
    },
    /// Another process claims the same name, and stands by: it has left a note in the Lease.
    Rival {
        /// `namespace/name`
        lease: String,
        /// What the note says.
        note: String,
    },
    /// Another process beats for the Lease without having claimed it.
    UnclaimedBeat {
        /// `namespace/name`
        lease: String,
    },
    /// We stopped, and left the Lease to the process that has taken it over.
    LeaseLeft {
        /// `namespace/name`
        lease: String,
    },
    /// The Lease is deleted, and the instance leaves at once.
    Deregistered {
        /// `namespace/name`
        lease: String,
    },
    /// There was nothing to deregister.
    NeverRegistered,
    /// Beats take another way, or cannot take the one that the registration asks for.
    Carrier(CarrierEvent),
}

/// How a Lease became ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquisition {
    /// It was created.
    Created,
    /// An earlier run of the same instance had left it.
    TakenOver,
    /// It replaced the Lease of an earlier Pod, or one that was left behind.
    Replaced,
    /// Another process had claimed it, and has fallen silent.
    TakenBack,
}

/// How important an event is for the person who runs the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A single beat.
    Detail,
    /// A change.
    Change,
    /// Something to look into.
    Warning,
}

impl Event {
    /// Returns how important the event is.
    pub fn weight(&self) -> Severity {
        match self {
            Self::Beat { .. } => Severity::Detail,
            Self::Publication { publication, .. } if !publication.is_published() => {
                Severity::Warning
            }
            Self::Claimed { .. }
            | Self::Recovered { .. }
            | Self::PaceChanged(_)
            | Self::HealthReported(_)
            | Self::Publication { .. }
            | Self::Deregistered { .. }
            | Self::LeaseLeft { .. }
            | Self::NeverRegistered
            | Self::Carrier(CarrierEvent::Changed(_)) => Severity::Change,
            Self::Failed { .. }
            | Self::RereadFailed(_)
            | Self::IntervalTooLong { .. }
            | Self::TtlTooLong { .. }
            | Self::Late { .. }
            | Self::SilentForTtl { .. }
            | Self::ClockOff { .. }
            | Self::TakenOverByOther { .. }
            | Self::Rival { .. }
            | Self::UnclaimedBeat { .. }
            | Self::LeaseLost { .. }
            | Self::Carrier(_) => Severity::Warning,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed { registration, instance, pace, how } => {
                let how = match how {
                    Acquisition::Created => "",
                    Acquisition::TakenOver => ", with the Lease of its earlier life",
                    Acquisition::Replaced => {
                        ", with a new Lease in place of an earlier Pod's, or of one that was left behind"
                    }
                    Acquisition::TakenBack => {
                        ", since the other process of that name has fallen silent"
                    }
                };
                write!(f, "beating as {instance} for {registration} {pace}{how}")
            }
            Self::Publication { publication, after } => {
                let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                let after = duration::format(Duration::from_millis(millis));
                write!(f, "{publication} (seen {after} after the first beat)")
            }
            Self::HealthReported(HealthReport { health, note, .. }) => {
                write!(f, "told that it is {}", health.as_str())?;
                note.as_ref().map_or(Ok(()), |note| write!(f, ": {}", plain(note)))
            }
            Self::Deregistered { lease } => write!(f, "deregistered: deleted the Lease {lease}"),
            Self::Carrier(event) => event.fmt(f),
            Self::NeverRegistered => write!(f, "stopped; there was nothing to deregister"),
            Self::Beat { .. }
            | Self::Recovered { .. }
            | Self::Late { .. }
            | Self::SilentForTtl { .. }
            | Self::Failed { .. }
            | Self::RereadFailed(_)
            | Self::ClockOff { .. } => self.fmt_beats(f),
            Self::PaceChanged(_) | Self::IntervalTooLong { .. } | Self::TtlTooLong { .. } => {
                self.fmt_pace(f)
            }
            Self::LeaseLost { .. }
            | Self::TakenOverByOther { .. }
            | Self::Rival { .. }
            | Self::UnclaimedBeat { .. }
            | Self::LeaseLeft { .. } => self.fmt_other_process(f),
        }
    }
}

impl Event {
    /// What became of beats and other requests.
    fn fmt_beats(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beat { at, took, late: _, carrier } => {
                let at = beatkeeper_api::heartbeat::renew_time(*at);
                let by = if *carrier == Carrier::Gateway { " by a gateway" } else { "" };
                write!(f, "beat {at} accepted{by} in {:.1}ms", took.as_secs_f64() * 1000.0)
            }
            Self::Recovered { after } => {
                write!(
                    f,
                    "beating again, {} after the last accepted beat",
                    duration::format(*after)
                )
            }
            Self::Late { by } => {
                write!(f, "a beat was sent {} late: the process did not run", duration::format(*by))
            }
            Self::SilentForTtl { silent, ttl } => write!(
                f,
                "no beat was accepted for {}, longer than the ttl of {}: it may have been taken out, and is back now",
                duration::format(*silent),
                duration::format(*ttl),
            ),
            Self::Failed { failure, retry_in } => {
                write!(f, "{failure}; retrying in {}", duration::format(*retry_in))
            }
            Self::RereadFailed(failure) => write!(f, "{failure}; beating on at the same pace"),
            Self::ClockOff { ahead } => {
                let side = if *ahead > 0 { "ahead of" } else { "behind" };
                let by = duration::format(Duration::from_secs(ahead.unsigned_abs()));
                write!(f, "the clock of this machine is {by} {side} the API server's")
            }
            _ => Ok(()),
        }
    }

    /// What the registration asks for.
    fn fmt_pace(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PaceChanged(pace) => {
                write!(f, "the registration has changed: now beating {pace}")
            }
            Self::IntervalTooLong { wanted, pace } => write!(
                f,
                "an interval of {} is slower than the registration asks for: beating every {}",
                duration::format(*wanted),
                duration::format(pace.interval()),
            ),
            Self::TtlTooLong { wanted, pace } => write!(
                f,
                "a ttl of {} is longer than the registration's: an instance that is silent for {} is pruned",
                duration::format(*wanted),
                duration::format(pace.ttl()),
            ),
            _ => Ok(()),
        }
    }

    /// What another process or client has done.
    fn fmt_other_process(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseLost { lease } => {
                write!(
                    f,
                    "another client has deleted or changed the Lease {lease}: claiming it again"
                )
            }
            Self::TakenOverByOther { lease, other_addresses: None } => write!(
                f,
                "another process has taken over the Lease {lease}: unless this one is about to end, give one of them another instance name"
            ),
            Self::TakenOverByOther { lease, other_addresses: Some(addresses) } => write!(
                f,
                "another process has taken over the Lease {lease}, with other addresses ({}): those are \
                 published now, and this process stands by until the other is silent for a ttl; give one of them \
                 another instance name",
                plain(addresses),
            ),
            Self::Rival { lease, note } => write!(
                f,
                "another process claims the Lease {lease} too, and stands by: {}; give one of them another instance name",
                plain(note),
            ),
            Self::UnclaimedBeat { lease } => write!(
                f,
                "another process beats for the Lease {lease} without having claimed it: it keeps this instance alive when this process dies"
            ),
            Self::LeaseLeft { lease } => {
                write!(
                    f,
                    "stopped; the Lease {lease} is left to the process that has taken it over"
                )
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interval, ttl) = (duration::format(self.interval()), duration::format(self.ttl()));
        write!(f, "every {interval} (ttl {ttl})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::{Cause, Operation},
        lease::Occupant,
    };
    use beatkeeper_api::heartbeat::Health;

    #[test]
    fn no_event_fakes_a_line_of_a_log_or_moves_the_cursor_of_a_terminal() {
        let (lease, text) = ("shop/greeter.vm-1".to_owned(), "a\n\u{1b}[2J\u{202e}b".to_owned());
        let health_report = HealthReport {
            health: Health::Failing,
            note: Some(text.clone()),
            ..HealthReport::default()
        };
        let occupied = Cause::Occupied(Occupant::Pod(text.clone()));
        let failure = Failure::found(Operation::CreateLease, &lease, occupied);
        for event in [
            Event::HealthReported(health_report),
            Event::TakenOverByOther { lease: lease.clone(), other_addresses: Some(text.clone()) },
            Event::Rival { lease, note: text },
            Event::Failed { failure, retry_in: Duration::ZERO },
        ] {
            let line = event.to_string();
            assert!(line.contains("a\\n\\u{1b}[2J\\u{202e}b"), "{line}");
        }
    }
}
