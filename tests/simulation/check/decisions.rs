//! What the processes decide: P1 for the instances that they take for dead, and P7.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
};

use beatkeeper::controller::Decided;
use beatkeeper_api::InstanceState;
use beatkeeper_core::{
    decide::verdict::Verdict,
    vocabulary::{key::Key, reason::Reason, version::Token},
};

use super::Check;
use crate::{executor::ProcessId, replica::Replica};

/// The reason for what is published: the last decision about a registration.
#[derive(Clone)]
pub(super) struct Explanation {
    pub(super) process: ProcessId,
    /// When the decision was taken, in the time of the simulation.
    pub(super) decided: u64,
    pub(super) min_ready: usize,
    pub(super) dry_run: bool,
    /// The addresses of the instances that are to be published.
    pub(super) wanted: BTreeSet<IpAddr>,
    /// By address: the decision about each instance that is not to be published.
    pub(super) unwanted: BTreeMap<IpAddr, (InstanceState, Reason, Option<Token>)>,
}

pub(super) type Explanations = BTreeMap<Key, Rc<Explanation>>;

/// What the sender of a request had decided, and when the request was sent.
#[derive(Clone)]
pub struct Purpose {
    pub(super) explanations: Rc<Explanations>,
    pub(super) sent: u64,
}

impl Check {
    /// Records a decision that stands. Checks P1 for the instances that the decision takes for dead, and P7.
    pub fn decided(&self, replica: &Replica, decided: &Decided<'_>) {
        let Decided { registration, records, verdicts, at } = *decided;
        self.tell(|| {
            let states: Vec<String> = verdicts
                .iter()
                .map(|one| format!("{} {}", one.instance, one.reason.as_str()))
                .collect();
            format!("replica {} decides: {states:?}", replica.place)
        });
        self.of(replica.process, |known| {
            let min_ready = known.min_ready.get(&registration.key).copied().unwrap_or_default();
            let why = explain(replica, min_ready, decided);
            Rc::make_mut(&mut known.explanations).insert(registration.key.clone(), Rc::new(why));
        });
        for verdict in verdicts {
            let told = !verdict.message.is_empty()
                || matches!(
                    verdict.state,
                    InstanceState::Ready | InstanceState::NotReady | InstanceState::Draining
                );
            if !told {
                self.fail(|| format!("P7: no message: {verdict:?}"));
            }
            let Some(judged) = &verdict.lease else { continue };
            let record = records.iter().find(|record| record.lease == judged.decision.lease);
            if let Some(record) = record
                && judged.decision.outcome.is_expired()
                && record.expired_at.is_none()
            {
                self.taken_for_dead(replica, registration, record, replica.absolute(at));
            }
        }
    }
}

fn explain(replica: &Replica, min_ready: usize, decided: &Decided<'_>) -> Explanation {
    let Decided { registration, verdicts, at, .. } = *decided;
    let addresses = |verdict: &Verdict| {
        verdict.placement.iter().flat_map(|placed| placed.addresses.clone()).collect::<Vec<_>>()
    };
    let wanted: BTreeSet<IpAddr> =
        verdicts.iter().filter(|verdict| verdict.is_published()).flat_map(addresses).collect();
    let unwanted = verdicts
        .iter()
        .filter(|verdict| !verdict.is_published())
        .flat_map(|verdict| {
            let token = verdict.lease.as_ref().map(|lease| lease.decision.token.clone());
            let why = (verdict.state, verdict.reason, token);
            addresses(verdict).into_iter().map(move |address| (address, why.clone()))
        })
        .collect();
    Explanation {
        process: replica.process,
        decided: replica.absolute(at),
        min_ready,
        dry_run: registration.dry_run,
        wanted,
        unwanted,
    }
}
