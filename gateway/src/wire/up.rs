//! Frames of a gateway as messages, and back.

use beatkeeper_core::{
    carriers::{
        frames::{Incarnation, InstanceId, Question, Sequence, Term, Tick, Up},
        rights::{BoundPod, Identity},
    },
    vocabulary::key::Key,
};

use crate::wire::{
    fields::{self, FieldError},
    messages::{self, UpHello, UpKind, UpMessage},
};

/// The message of a frame.
pub(super) fn write(frame: &Up) -> UpMessage {
    let kind = match frame {
        Up::Hello { incarnation, term } => UpKind::Hello(UpHello {
            pod: incarnation.pod.to_string(),
            epoch: incarnation.epoch,
            term: term.map(|term| term.0),
        }),
        Up::Introduce { id, lease, identity, allowed } => {
            let pod = identity.pod.as_ref().map(|pod| messages::BoundPod {
                name: pod.name.to_string(),
                uid: pod.uid.to_string(),
            });
            UpKind::Introduce(messages::Introduce {
                id: id.0,
                namespace: lease.namespace.clone(),
                name: lease.name.clone(),
                user: identity.user.to_string(),
                pod,
                allowed: *allowed,
            })
        }
        Up::Since { up_to, ids } => {
            UpKind::Since(messages::Since { up_to: up_to.0, ids: fields::numbers(ids) })
        }
        Up::Batch { sequence, echo, answers, ids } => UpKind::Batch(messages::Batch {
            sequence: sequence.0,
            echo: echo.0,
            answers: answers.map(|question| question.0),
            ids: fields::numbers(ids),
        }),
        Up::Leaving => UpKind::Leaving(messages::Leaving {}),
    };
    UpMessage { kind: Some(kind) }
}

/// The frame of a message; `None` if this version does not know its kind.
pub(super) fn read(message: UpMessage) -> Result<Option<Up>, FieldError> {
    let Some(kind) = message.kind else { return Ok(None) };
    Ok(Some(match kind {
        UpKind::Hello(UpHello { pod, epoch, term }) => Up::Hello {
            incarnation: Incarnation { pod: fields::name("Hello", "pod", &pod)?.into(), epoch },
            term: term.map(Term),
        },
        UpKind::Introduce(introduced) => introduce(&introduced)?,
        UpKind::Since(messages::Since { up_to, ids }) => {
            Up::Since { up_to: Sequence(up_to), ids: fields::ids(ids).collect() }
        }
        UpKind::Batch(messages::Batch { sequence, echo, answers, ids }) => Up::Batch {
            sequence: Sequence(sequence),
            echo: Tick(echo),
            answers: answers.map(Question),
            ids: fields::ids(ids).collect(),
        },
        UpKind::Leaving(messages::Leaving {}) => Up::Leaving,
    }))
}

fn introduce(introduced: &messages::Introduce) -> Result<Up, FieldError> {
    const KIND: &str = "Introduce";
    let messages::Introduce { id, namespace, name, user, pod, allowed } = introduced;
    let bound = |pod: &messages::BoundPod| {
        Ok(BoundPod {
            name: fields::name(KIND, "name of a Pod", &pod.name)?.into(),
            uid: fields::name(KIND, "uid of a Pod", &pod.uid)?.into(),
        })
    };
    let lease = Key::new(
        fields::name(KIND, "namespace", namespace)?,
        fields::name(KIND, "name of a Lease", name)?,
    );
    let user = fields::user(KIND, user)?.into();
    let identity = Identity { user, pod: pod.as_ref().map(bound).transpose()? };
    Ok(Up::Introduce { id: InstanceId(*id), lease, identity, allowed: *allowed })
}
