//! The verdicts of the last decision about a registration, kept so that the next one costs what has changed.
//!
//! Most verdicts *stand*: the instance beats in time, was seen to beat, and is published; or it is dead, and out of the
//! slices. Such a verdict changes only with its Lease, its Pod, its address in the slices, or a late beat. All other
//! verdicts are made anew in each decision. [`super::decide`] makes all of them, and is what tests and the simulation
//! compare a kept decision with.
//!
//! In a verdict that stands, the last beat and its token may be earlier ones, and nothing says when its beat is late:
//! each beat would change that.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use beatkeeper_api::InstanceState;

use crate::{
    decide::{
        candidate::{self, Candidate},
        facts::Facts,
        min_ready, never_beat,
        ordered::{insert_all, position, remove_all},
        premise::Premise,
        verdict::{JudgedLease, Suspect, Verdict},
    },
    inputs::seen::SeenObjects,
    liveness::index::{
        Basis, LeaseDecision, NextBeat, Outcome, Presence, Provenance, Record, Removal, Standing,
        Ticket,
    },
    objects::registration::Registration,
    vocabulary::instance::InstanceName,
};

/// The last decision about a registration.
#[derive(Debug)]
pub struct KeptDecision {
    premise: Premise,
    ticket: Ticket,
    /// What it has seen of the objects around the registration.
    pub seen: SeenObjects,
    /// All verdicts, ordered by the name of the instance.
    verdicts: Arc<Vec<Verdict>>,
    /// The addresses of the instances with a verdict that stands, each with the Lease.
    places: BTreeSet<(IpAddr, Arc<str>)>,
    /// How many verdicts stand until a beat is late.
    alive: usize,
    /// How many of them say that the instance is ready.
    ready: usize,
    /// The declared instances without a verdict on a Lease.
    silent: BTreeSet<String>,
    /// The instances with a Lease whose verdicts do not stand.
    unsettled: BTreeSet<InstanceName>,
    /// The addresses of instances about which was decided anew since the last plan.
    touched: BTreeSet<IpAddr>,
}

/// The verdict on a Lease.
#[derive(Debug)]
pub struct Judged {
    lease: Arc<str>,
    /// `None` if the instance is gone.
    verdict: Option<Verdict>,
    standing: Standing,
}

/// The part of a decision that was made anew.
#[derive(Debug)]
pub struct Renewed {
    judged: Vec<Judged>,
    silent: Vec<Verdict>,
}

impl Renewed {
    /// The decisions about the Leases, to be committed.
    pub fn decisions(&self) -> impl Iterator<Item = (&Arc<str>, Option<&LeaseDecision>)> {
        self.judged.iter().map(|judged| {
            let decision = judged.verdict.as_ref().and_then(Verdict::lease_decision);
            (&judged.lease, decision)
        })
    }

    /// Which of the verdicts stand.
    pub fn standings(&self) -> impl Iterator<Item = (&Arc<str>, Standing)> {
        self.judged.iter().map(|judged| (&judged.lease, judged.standing))
    }

    /// The suspects. All are among the verdicts that were made anew.
    pub fn suspects(&self) -> Vec<Suspect> {
        let judged = self.judged.iter().filter_map(|judged| judged.verdict.as_ref());
        judged.filter_map(|verdict| verdict.lease.as_ref()?.suspect.as_deref().cloned()).collect()
    }
}

impl KeptDecision {
    /// Keeps a decision about all instances, which was made from these records. The second result says which verdicts
    /// stand.
    pub fn new(
        registration: &Registration,
        records: &[Record],
        premise: Premise,
        ticket: Ticket,
        seen: SeenObjects,
        mut verdicts: Vec<Verdict>,
    ) -> (Self, Vec<(Arc<str>, Standing)>) {
        let declared = registration.declared.keys().cloned().collect();
        let mut kept = Self {
            premise,
            ticket,
            seen,
            verdicts: Arc::default(),
            places: BTreeSet::new(),
            alive: 0,
            ready: 0,
            silent: declared,
            unsettled: BTreeSet::new(),
            touched: BTreeSet::new(),
        };
        let mut on_leases: HashMap<Arc<str>, &mut Verdict> = HashMap::new();
        for verdict in &mut verdicts {
            if let Some(lease) = verdict.lease_decision().map(|decision| decision.lease.clone()) {
                kept.silent.remove(&*verdict.instance);
                on_leases.insert(lease, verdict);
            }
        }
        let mut standings = Vec::with_capacity(records.len());
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            let verdict = on_leases.remove(&record.lease);
            let standing = verdict.map_or(Standing::No, |verdict| {
                let standing = settle(record, verdict);
                kept.count(verdict, standing);
                places.extend(kept_at(verdict, standing));
                if standing == Standing::No {
                    kept.unsettled.insert(verdict.instance.clone());
                }
                standing
            });
            standings.push((record.lease.clone(), standing));
        }
        kept.places = places.into_iter().collect();
        kept.verdicts = Arc::new(verdicts);
        (kept, standings)
    }

    /// Names this decision in the index.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// All verdicts, ordered by the name of the instance.
    pub fn verdicts(&self) -> &Arc<Vec<Verdict>> {
        &self.verdicts
    }

    /// Whether the decision rests on the same premise.
    pub fn rests_on(&self, premise: &Premise) -> bool {
        self.premise == *premise
    }

    /// How many instances beat in time, for the outage guard. `None` if not each of them has beaten in its window. The
    /// Leases that are judged anew are not counted.
    pub fn beating(&self, overdue_after: Duration) -> Option<usize> {
        self.premise.beats_arrive_in_the_window(overdue_after).then_some(self.alive)
    }

    /// The Leases of the verdicts that stand on instances at these addresses.
    pub fn leases_at<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
    ) -> BTreeSet<Arc<str>> {
        let (mut leases, least) = (BTreeSet::new(), Arc::from(""));
        for address in addresses {
            let at = self.places.range((*address, Arc::clone(&least))..);
            leases.extend(at.take_while(|(at, _)| at == address).map(|(_, lease)| lease.clone()));
        }
        leases
    }

    /// The addresses of instances about which was decided anew since this was last asked: those that they had, and those
    /// that they have.
    pub fn take_touched(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.touched)
    }

    /// The verdicts on the instances at these addresses, which are all that claim them.
    pub fn claims_at(&self, addresses: &BTreeSet<IpAddr>) -> Vec<&Verdict> {
        let registration = &self.premise.key().name;
        let leases = self.leases_at(addresses);
        let standing = leases.iter().map(|lease| candidate::name_of(lease, registration).0);
        let names: BTreeSet<InstanceName> =
            standing.chain(self.unsettled.iter().cloned()).collect();
        let found = names.iter().filter_map(|name| self.find(name).ok());
        found.map(|at| &self.verdicts[at]).collect()
    }

    /// The verdicts on these Leases do not stand any more.
    pub fn reopen(&mut self, leases: &BTreeSet<Arc<str>>, registration: &str) {
        for lease in leases {
            let (name, _) = candidate::name_of(lease, registration);
            let Ok(at) = self.find(&name) else { continue };
            let Verdict { state, placement, .. } = &self.verdicts[at];
            let mut stood = false;
            for address in placement.iter().flat_map(|placement| &placement.addresses) {
                stood |= self.places.remove(&(*address, lease.clone()));
                self.touched.insert(*address);
            }
            if stood && *state != InstanceState::Expired {
                self.alive -= 1;
                self.ready -= usize::from(*state == InstanceState::Ready);
            }
        }
    }

    /// Judges the Leases anew of which the facts hold the records. Those of `leases` without a record are gone.
    pub fn decide(&self, facts: &Facts<'_>, leases: &BTreeSet<Arc<str>>) -> Renewed {
        let records = facts.instances.records;
        let mut verdicts: HashMap<&Arc<str>, Verdict> = HashMap::new();
        for (place, record) in records.iter().enumerate() {
            if let Some(verdict) = Candidate::of(facts, place, record).judge() {
                verdicts.insert(&record.lease, verdict);
            }
        }
        let ready = verdicts.values().filter(|it| min_ready::counts_as_ready(facts, it)).count();
        let record_of = |lease: &Arc<str>| {
            let found = records.binary_search_by(|record| record.lease.cmp(lease));
            found.ok().map(|at| &records[at])
        };
        let min_ready = facts.registration.min_ready;
        min_ready::protect(verdicts.values_mut(), min_ready, self.ready + ready, |verdict| {
            let was_ready = |lease: &_| record_of(lease).is_some_and(min_ready::was_ready);
            min_ready::is_about_to_be_pruned(facts, verdict, was_ready)
        });
        let mut judged: Vec<Judged> = leases
            .iter()
            .map(|lease| Judged {
                lease: lease.clone(),
                verdict: verdicts.remove(lease),
                standing: Standing::No,
            })
            .collect();
        for Judged { lease, verdict, standing } in &mut judged {
            if let (Some(verdict), Some(record)) = (verdict, record_of(lease)) {
                *standing = settle(record, verdict);
            }
        }
        let named = judged.iter().filter_map(|judged| judged.verdict.as_ref());
        let named: BTreeSet<&str> = named.map(|verdict| &*verdict.instance).collect();
        let gone = judged.iter().filter(|judged| judged.verdict.is_none());
        let (of, declared) = (&facts.registration.key.name, &facts.registration.declared);
        let left = gone.map(|judged| candidate::name_of(&judged.lease, of).0);
        let left = left.filter(|name| declared.contains_key(&**name)).collect::<Vec<_>>();
        let silent: BTreeSet<&str> =
            self.silent.iter().map(String::as_str).chain(left.iter().map(|name| &**name)).collect();
        let silent = silent.difference(&named).map(|name| never_beat(facts, name)).collect();
        Renewed { judged, silent }
    }

    /// Takes over what was made anew.
    pub fn renew(&mut self, renewed: Renewed, registration: &str) {
        let Renewed { judged, silent } = renewed;
        let (mut gone, mut new) = (BTreeSet::new(), Vec::new());
        let mut verdicts = std::mem::take(&mut self.verdicts);
        let all = Arc::make_mut(&mut verdicts);
        let mut put = |verdict: Verdict| match position(all, &verdict.instance) {
            Ok(at) => all[at] = verdict,
            Err(_) => new.push(verdict),
        };
        for Judged { lease, verdict, standing } in judged {
            match verdict {
                Some(verdict) => {
                    self.silent.remove(&*verdict.instance);
                    self.count(&verdict, standing);
                    self.places.extend(kept_at(&verdict, standing));
                    self.touched.extend(verdict.placement.iter().flat_map(|it| &it.addresses));
                    match standing {
                        Standing::No => self.unsettled.insert(verdict.instance.clone()),
                        _ => self.unsettled.remove(&verdict.instance),
                    };
                    put(verdict);
                }
                None => {
                    let (name, _) = candidate::name_of(&lease, registration);
                    self.unsettled.remove(&name);
                    gone.insert(name);
                }
            }
        }
        for verdict in silent {
            self.silent.insert(verdict.instance.to_string());
            gone.remove(&verdict.instance);
            put(verdict);
        }
        remove_all(all, &gone);
        insert_all(all, new);
        self.verdicts = verdicts;
    }

    fn count(&mut self, verdict: &Verdict, standing: Standing) {
        if standing == Standing::Alive {
            self.alive += 1;
            self.ready += usize::from(verdict.state == InstanceState::Ready);
        }
    }

    fn find(&self, instance: &InstanceName) -> Result<usize, usize> {
        position(&self.verdicts, instance)
    }
}

/// The places to find a verdict by that stands.
fn kept_at(verdict: &Verdict, standing: Standing) -> impl Iterator<Item = (IpAddr, Arc<str>)> {
    let stands = standing != Standing::No;
    let lease = verdict.lease_decision().filter(|_| stands).map(|decision| decision.lease.clone());
    let addresses = verdict.placement.iter().flat_map(|placement| &placement.addresses);
    addresses.filter_map(move |address| Some((*address, lease.clone()?)))
}

/// Says whether a verdict stands. If it does, nothing is left in it of the time at which its beat is late.
fn settle(record: &Record, verdict: &mut Verdict) -> Standing {
    let standing = standing(record, verdict);
    if standing != Standing::No {
        verdict.requeue_at = None;
    }
    standing
}

/// Whether a verdict stands: nothing but a change of its Lease, its Pod, its address in the slices or a late beat can
/// change it.
fn standing(record: &Record, verdict: &Verdict) -> Standing {
    let Some(JudgedLease { decision, suspect: None, deadline: None }) = &verdict.lease else {
        return Standing::No;
    };
    let is_certain = record.provenance == Provenance::Changed
        && record.presence == Presence::Watched
        && record.grace.is_none()
        && record.content.cordoned.is_none()
        && (record.token.renewed.is_some() || record.carrier.is_some())
        && !decision.wanted.is_awaited()
        && verdict.placement.is_some();
    match decision.outcome {
        _ if !is_certain => Standing::No,
        Outcome::Published(Basis::FoundPublished)
            if decision.next_beat == NextBeat::IsNoOp && record.expired_at.is_none() =>
        {
            Standing::Alive
        }
        // What is said of a dead instance names the gateway of its last beat, as long as that one is there.
        Outcome::Expired(Removal::None)
            if record.expired_at.is_some() && record.carrier.is_none() =>
        {
            match verdict.requeue_at {
                None => Standing::Dead,
                Some(_) => Standing::No,
            }
        }
        _ => Standing::No,
    }
}
