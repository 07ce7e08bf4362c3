//! The live reads. Mirrors verify.rs.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use beatkeeper_core::{
    decide::verdict::Suspect, liveness::index::LiveRead, objects::heartbeat::Heartbeat,
    vocabulary::key::Key,
};
use futures::future;

use super::Controller;
use crate::{
    api::{Answer, Call, Refusal},
    object::{Kind, Object},
    rules::Without,
};

/// Smaller than in the shell, so that small services use both ways of reading.
const ONE_BY_ONE: usize = 6;

/// The missing evidence: Leases that could not be read, and a proof that could not be had.
#[derive(Default)]
pub struct Missing {
    pub unreadable: BTreeMap<Arc<str>, String>,
    pub unproven: Option<String>,
}

impl Missing {
    pub fn nothing(&self) -> bool {
        self.unreadable.is_empty() && self.unproven.is_none()
    }
}

impl Controller {
    /// Mirrors `suspects`.
    pub(super) async fn verify(
        self: &Rc<Self>,
        registration: &Key,
        suspects: Vec<Suspect>,
    ) -> Missing {
        let latest = suspects.iter().filter_map(|suspect| suspect.deadline).max();
        let proof = async {
            match latest {
                Some(deadline) if self.setup.without != Without::Probes => {
                    self.prove_up_to(deadline).await.err()
                }
                _ => None,
            }
        };
        let (unproven, unreadable) =
            future::join(proof, self.read_live(registration, suspects)).await;
        Missing { unreadable, unproven }
    }

    /// Mirrors `read_live`, with other sizes: here so few instances are in doubt that one list soon costs less.
    async fn read_live(
        self: &Rc<Self>,
        registration: &Key,
        suspects: Vec<Suspect>,
    ) -> BTreeMap<Arc<str>, String> {
        let mut unread: BTreeMap<Arc<str>, String> = BTreeMap::new();
        for suspect in &suspects {
            let skip = self.setup.without == Without::LiveReads && suspect.deadline.is_some();
            if skip {
                self.believe(registration, &suspect.lease);
            } else {
                unread.insert(suspect.lease.clone(), "no answer in time".to_owned());
            }
        }
        if unread.len() > ONE_BY_ONE {
            match self.list_live(registration).await {
                Ok(found) => unread.retain(|lease, _| !found.contains(lease)),
                Err(refusal) => {
                    unread.values_mut().for_each(|told| *told = format!("{refusal:?}"));
                    return unread;
                }
            }
        }
        let left: Vec<Arc<str>> = unread.keys().cloned().collect();
        let reads = left.iter().map(|lease| self.read(registration, lease));
        for (lease, result) in left.iter().zip(future::join_all(reads).await) {
            match result {
                Ok(()) => drop(unread.remove(lease)),
                Err(refusal) => drop(unread.insert(lease.clone(), format!("{refusal:?}"))),
            }
        }
        unread
    }

    /// Implements [`Without::LiveReads`]: it acts as if a read had shown the known state.
    fn believe(&self, registration: &Key, lease: &Arc<str>) {
        let now = self.now();
        let mut index = self.index();
        let records = index.records_of(registration);
        let Some(record) = records.into_iter().find(|record| record.lease == *lease) else {
            return;
        };
        let known = Heartbeat {
            lease: lease.to_string(),
            registration: Some(registration.name.clone()),
            token: record.token,
            version: record.version,
            second_hand: false,
            content: (*record.content).clone(),
        };
        index.confirm(
            &Key::new(&registration.namespace, &**lease),
            LiveRead::Found(known),
            now,
            now,
        );
    }

    async fn read(self: &Rc<Self>, registration: &Key, lease: &str) -> Result<(), Refusal> {
        let key = Key::new(&registration.namespace, lease);
        let sent = self.now();
        let read = match self.call(Call::Get(Kind::Lease, key.clone())).await {
            Ok(Answer::Object(Object::Lease(lease))) => LiveRead::Found(Heartbeat::read(&lease)),
            Err(Refusal::Absent) => LiveRead::Absent,
            Err(refusal) => return Err(refusal),
            Ok(_) => return Err(Refusal::Unavailable),
        };
        let wake = self.index().confirm(&key, read, sent, self.now()).wake;
        self.wake(wake.into_iter().filter(|key| key != registration));
        Ok(())
    }

    async fn list_live(self: &Rc<Self>, registration: &Key) -> Result<BTreeSet<Arc<str>>, Refusal> {
        let sent = self.now();
        let leases = match self.call(Call::LeasesOf(registration.clone())).await? {
            Answer::List(leases, _) => leases,
            _ => return Err(Refusal::Unavailable),
        };
        let now = self.now();
        let mut found = BTreeSet::new();
        let mut moved = Vec::new();
        for lease in leases.iter().filter_map(Object::lease) {
            let beat = Heartbeat::read(lease);
            let name: Arc<str> = beat.lease.as_str().into();
            let key = Key::new(&registration.namespace, &*name);
            moved.extend(self.index().confirm(&key, LiveRead::Found(beat), sent, now).wake);
            found.insert(name);
        }
        self.wake(moved.into_iter().filter(|key| key != registration));
        Ok(found)
    }
}
