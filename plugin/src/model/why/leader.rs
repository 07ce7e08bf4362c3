//! What the leader has said about the instance, and the steps about the leader itself.

use std::time::Duration;

use beatkeeper_api::{
    InstanceState,
    explain::{ExplainDecision, Explanation},
};

use super::{
    case::Case,
    step::{Mark, Step},
};
use crate::times;

/// What the leader has said.
#[derive(Debug, Clone, PartialEq)]
pub enum Leader {
    /// What it knows.
    Explained(Box<Explanation>),
    /// Nothing, and why.
    Unasked(String),
    /// It was not to be asked.
    NotWanted,
}

impl Leader {
    /// What it knows, if it has said it.
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            Self::Explained(explanation) => Some(explanation),
            Self::Unasked(_) | Self::NotWanted => None,
        }
    }

    /// The step about who argues.
    pub(super) fn step(&self) -> Option<Step> {
        let (mark, text) = match self {
            Self::NotWanted => return None,
            Self::Unasked(why) => {
                (Mark::Note, format!("not asked: {why}. This is argued from API objects alone"))
            }
            Self::Explained(explanation) => {
                let replica = &explanation.replica;
                let term = replica.term.unwrap_or_default();
                match replica.term_began {
                    Some(began) => (
                        Mark::Fine,
                        format!(
                            "{} has answered: it has led for {} (term {term})",
                            replica.name,
                            span(began)
                        ),
                    ),
                    None => (
                        Mark::Note,
                        format!(
                            "{} has answered: it leads, and decides nothing before its probe has come back",
                            replica.name
                        ),
                    ),
                }
            }
        };
        Some(Step::new("leader", mark, text))
    }
}

/// What was decided: the leader knows it before the status does.
pub(super) struct Decided<'a> {
    /// The state.
    pub(super) state: InstanceState,
    /// The reason, as one word.
    pub(super) reason: &'a str,
    /// The reason in words.
    pub(super) message: &'a str,
    /// How long ago, if the leader says it.
    pub(super) ago: Option<Duration>,
}

impl<'a> Decided<'a> {
    /// By the leader, or else by the status.
    pub(super) fn of(case: &Case<'a>) -> Self {
        let told = case.leader.and_then(|it| it.decision.as_ref()).and_then(read);
        told.unwrap_or_else(|| Self {
            state: case.instance.state,
            reason: &case.instance.reason,
            message: &case.instance.message,
            ago: None,
        })
    }
}

/// A decision of the leader; `None` if it is in a state that this plugin does not know.
fn read(decision: &ExplainDecision) -> Option<Decided<'_>> {
    let ExplainDecision { at, state, reason, message } = decision;
    let state = InstanceState::ALL.into_iter().find(|known| known.as_str() == *state)?;
    Some(Decided { state, reason, message, ago: Some(duration(*at)) })
}

/// The step about what happens next.
pub(super) fn next(case: &Case<'_>) -> Option<Step> {
    let explanation = case.leader?;
    let look = explanation.next_look.map(|next| {
        format!("the leader looks at the registration again in {} at the latest", span(next))
    });
    let beat = explanation.lease.as_ref().map(|lease| match lease.next_beat_wakes {
        true => "the next beat is decided about at once",
        false => "a beat in time changes nothing",
    });
    let text = match (look, beat) {
        (Some(look), Some(beat)) => format!("{look}; {beat}"),
        (Some(text), None) => text,
        (None, Some(beat)) => beat.to_owned(),
        (None, None) => return None,
    };
    Some(Step::new("next", Mark::Note, text))
}

/// Seconds that the leader has told.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Seconds that the leader has told, for people.
pub(super) fn span(seconds: f64) -> String {
    times::span(duration(seconds))
}
