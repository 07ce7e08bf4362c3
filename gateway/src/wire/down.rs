//! Frames of a replica as messages, and back.

use beatkeeper_core::carriers::{
    frames::{Down, InstanceId, Question, ReplicaName, Sequence, Term, Tick, Verdict},
    rights::Refusal,
};

use crate::wire::{
    fields::{self, FieldError},
    messages::{self, DownHello, DownKind, DownMessage, RefusalKind, VerdictKind},
};

/// What a replica says on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromReplica {
    /// Who it is. The first frame, and no other one.
    Name(ReplicaName),
    /// What the state machine takes.
    Frame(Down),
}

/// The first message of a replica.
pub(super) fn name(name: &ReplicaName) -> DownMessage {
    let replica = messages::Replica { name: name.to_string() };
    DownMessage { kind: Some(DownKind::Replica(replica)) }
}

/// The message of a frame.
pub(super) fn write(frame: &Down) -> DownMessage {
    let kind = match frame {
        Down::Hello { have } => DownKind::Hello(DownHello {
            epoch: have.map(|(epoch, _)| epoch),
            batch: have.map(|(_, batch)| batch.0),
        }),
        Down::Tick(tick) => DownKind::Tick(tick.0),
        Down::Leads(term) => DownKind::Leads(term.0),
        Down::Ask { question, term } => {
            DownKind::Ask(messages::Ask { question: question.0, term: term.map(|term| term.0) })
        }
        Down::Acknowledge { batch, term, not_held } => {
            DownKind::Acknowledge(messages::Acknowledge {
                batch: batch.0,
                term: term.0,
                not_held: fields::numbers(not_held),
            })
        }
        Down::Verdict { id, verdict, term } => DownKind::Verdict(messages::Verdict {
            id: id.0,
            term: term.0,
            kind: Some(verdict_kind(verdict)),
        }),
    };
    DownMessage { kind: Some(kind) }
}

fn verdict_kind(verdict: &Verdict) -> VerdictKind {
    match verdict {
        Verdict::Allowed(pace) => VerdictKind::Allowed(messages::Pace {
            ttl: fields::millis(pace.ttl),
            interval: fields::millis(pace.interval),
        }),
        Verdict::Refused(why) => VerdictKind::Refused(refusal(why)),
        Verdict::Unknown => VerdictKind::Unknown(messages::Unknown {}),
    }
}

fn refusal(why: &Refusal) -> messages::Refusal {
    let kind = match why {
        Refusal::OtherNamespace { user, namespace } => {
            let (user, namespace) = (user.to_string(), namespace.clone());
            Some(RefusalKind::OtherNamespace(messages::OtherNamespace { user, namespace }))
        }
        Refusal::OtherPod { lease, owner, found } => {
            let (lease, owner, found) = (lease.clone(), owner.clone(), found.clone());
            Some(RefusalKind::OtherPod(messages::OtherPod { lease, owner, found }))
        }
        Refusal::LacksRight { user, verb, lease } => {
            let (user, verb, lease) = (user.to_string(), verb.to_string(), lease.clone());
            Some(RefusalKind::LacksRight(messages::LacksRight { user, verb, lease }))
        }
        Refusal::Other(_) => None,
    };
    messages::Refusal { text: why.to_string(), kind }
}

/// The frame of a message; `None` if this version does not know its kind.
pub(super) fn read(message: DownMessage) -> Result<Option<FromReplica>, FieldError> {
    let Some(kind) = message.kind else { return Ok(None) };
    let frame = match kind {
        DownKind::Replica(messages::Replica { name }) => {
            let name = fields::name("Replica", "name", &name)?;
            return Ok(Some(FromReplica::Name(name.into())));
        }
        DownKind::Hello(DownHello { epoch, batch }) => match (epoch, batch) {
            (Some(epoch), Some(batch)) => Down::Hello { have: Some((epoch, Sequence(batch))) },
            (None, None) => Down::Hello { have: None },
            (None, _) => return Err(FieldError::Missing { kind: "Hello", field: "epoch" }),
            (_, None) => return Err(FieldError::Missing { kind: "Hello", field: "batch" }),
        },
        DownKind::Tick(micros) => Down::Tick(Tick(micros)),
        DownKind::Leads(term) => Down::Leads(Term(term)),
        DownKind::Ask(messages::Ask { question, term }) => {
            Down::Ask { question: Question(question), term: term.map(Term) }
        }
        DownKind::Acknowledge(messages::Acknowledge { batch, term, not_held }) => {
            Down::Acknowledge {
                batch: Sequence(batch),
                term: Term(term),
                not_held: fields::ids(not_held).collect(),
            }
        }
        DownKind::Verdict(messages::Verdict { id, term, kind }) => {
            let Some(kind) = kind else { return Ok(None) };
            let verdict = verdict(kind)?;
            Down::Verdict { id: InstanceId(id), verdict, term: Term(term) }
        }
    };
    Ok(Some(FromReplica::Frame(frame)))
}

fn verdict(kind: VerdictKind) -> Result<Verdict, FieldError> {
    Ok(match kind {
        VerdictKind::Allowed(pace) => Verdict::Allowed(fields::pace("Verdict", &pace)?),
        VerdictKind::Refused(messages::Refusal { text, kind }) => Verdict::Refused(match kind {
            Some(kind) => known(kind),
            None => Refusal::Other(text.into()),
        }),
        VerdictKind::Unknown(messages::Unknown {}) => Verdict::Unknown,
    })
}

fn known(kind: RefusalKind) -> Refusal {
    match kind {
        RefusalKind::OtherNamespace(messages::OtherNamespace { user, namespace }) => {
            Refusal::OtherNamespace { user: user.into(), namespace }
        }
        RefusalKind::OtherPod(messages::OtherPod { lease, owner, found }) => {
            Refusal::OtherPod { lease, owner, found }
        }
        RefusalKind::LacksRight(messages::LacksRight { user, verb, lease }) => {
            Refusal::LacksRight { user: user.into(), verb: verb.into(), lease }
        }
    }
}
