//! The rules of the design. Each rule can be left out, to show that the checks notice it.
//!
//! What a rule sees through the API server is changed on the way to the operator. The other rules are left out by the
//! observer of a process ([`crate::replica`]).

use std::rc::Rc;

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use hyper::body::Bytes;
use serde_json::Value;

use crate::{
    executor::ProcessId,
    network::Network,
    object::{LEASES, OPERATOR, REGISTRATIONS, is_operators},
    server::Answer,
    store::{Resource, Stored},
    wire::{Ask, Asked, Refusal},
};

/// The rule that is left out of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Without {
    /// Leaves out nothing: the operator as it is.
    #[default]
    Nothing,
    /// L1: the silence of an instance is computed from renewTime with the wall clock.
    SeenMoments,
    /// L2: a live read shows no more than the watch has delivered.
    LiveReads,
    /// L3: every probe counts as seen, and no gap is recognised.
    Probes,
    /// L4: a Lease without its label counts as gone, because a read does not show it either.
    DoubtOfDeletions,
    /// L5: published instances get no ttl after a cold start.
    Grace,
    /// L5: a process remembers nothing of an earlier process.
    Memory,
    /// L6: the outage guard is not asked.
    Guard,
    /// L7: minReady is zero.
    Protection,
    /// L8: a shorter ttl applies at once.
    TtlHistory,
    /// The operator does not notice that the store went back to an earlier state.
    Rollbacks,
    /// L4: an instance with a missing Lease is read only when a decision asks for it, after the foreseen
    /// suspects.
    TheMissing,
}

impl Without {
    /// An answer in place of that of the API server.
    pub fn answer(self, network: &Network, process: ProcessId, asked: &Asked) -> Option<Answer> {
        if asked.resource != LEASES || !matches!(asked.ask, Ask::Get | Ask::List { .. }) {
            return None;
        }
        match self {
            Self::LiveReads => self.as_delivered(network, process, asked),
            Self::DoubtOfDeletions if matches!(asked.ask, Ask::Get) => {
                let (answer, _) = network.server.execute(asked, None);
                match answer {
                    Answer::Object(lease) if is_stripped(&lease) => Some(absent(asked)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Answers with what the watch has delivered. It reports a Lease that has lost its label as deleted.
    fn as_delivered(self, network: &Network, process: ProcessId, asked: &Asked) -> Option<Answer> {
        asked.namespace.as_ref().filter(|namespace| *namespace != OPERATOR)?;
        let cursor = network.watches.cursor(process, LEASES)?;
        let upto = cursor.min(network.server.store.borrow().log(LEASES).len());
        match asked.ask {
            Ask::List { .. } => Some(network.server.execute(asked, Some(upto)).0),
            _ => {
                let name = asked.name.as_deref().unwrap_or_default();
                let known = network.server.store.borrow().as_of(LEASES, upto);
                let is = |lease: &&Rc<Stored>| {
                    let key = lease.key();
                    key.name == name && Some(&key.namespace) == asked.namespace.as_ref()
                };
                let lease = known.iter().find(is).filter(|lease| !is_stripped(lease)).cloned();
                Some(lease.map_or_else(|| absent(asked), Answer::Object))
            }
        }
    }

    /// What the operator gets in place of an object, a list or an event.
    pub fn rewrite(self, resource: Resource, text: &Bytes) -> Option<Bytes> {
        let wanted = match self {
            Self::Memory => LEASES,
            Self::Protection => REGISTRATIONS,
            _ => return None,
        };
        if resource != wanted {
            return None;
        }
        let mut value: Value = serde_json::from_slice(text).ok()?;
        for object in objects(&mut value) {
            match self {
                Self::Memory => forget(object),
                _ => drop(object["spec"].as_object_mut().map(|spec| spec.remove("protection"))),
            }
        }
        let mut text = serde_json::to_vec(&value).ok()?;
        text.push(b'\n');
        Some(text.into())
    }
}

fn is_stripped(lease: &Stored) -> bool {
    !is_operators(&lease.key()) && lease.label(REGISTRATION_LABEL).is_none()
}

fn absent(asked: &Asked) -> Answer {
    Answer::Refused(Refusal::absent(asked.name.as_deref().unwrap_or_default()))
}

/// Removes what an earlier process has written down about silent instances.
fn forget(lease: &mut Value) {
    if lease["metadata"]["namespace"] == OPERATOR
        && let Some(annotations) = lease["metadata"]["annotations"].as_object_mut()
    {
        annotations.clear();
    }
}

/// The objects in an object, in a list or in an event.
fn objects(value: &mut Value) -> Vec<&mut Value> {
    if value.get("items").is_some() {
        return value["items"].as_array_mut().into_iter().flatten().collect();
    }
    if value.get("type").is_some() && value.get("object").is_some() {
        return vec![&mut value["object"]];
    }
    vec![value]
}
