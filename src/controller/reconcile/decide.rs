//! The decide step around the core. It passes what is known to the core, verifies each prune before it is
//! decided, and notes the outcome in the index.

use std::{cell::OnceCell, collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use beatkeeper_api::{InstanceState, ServiceRegistration};

use crate::controller::{
    context::Context,
    metrics::Step,
    observer::{Decided, Undecided},
    reconcile::{
        inputs,
        pipeline::backoff,
        verify::{self, Missing},
    },
};
use beatkeeper_core::{
    cluster_cache::dependents::Asked,
    decide::{
        self,
        cordons::Cordons,
        evidence::Evidence,
        facts::Facts,
        verdict::{Suspect, Verdict},
    },
    inputs::{Inputs, earlier::Earlier, preconditions, snapshot},
    liveness::{
        index::{CommitResult, Record},
        ttl::TtlHistory,
    },
    objects::registration::Registration,
    vocabulary::{address::AddressSet, monotonic_time::MonotonicTime},
};

/// A registration is reconciled after this time even if nothing has woken it.
const RESYNC: Duration = Duration::from_secs(600);

/// The result of the decide step.
pub(crate) struct Decision {
    pub(crate) verdicts: Vec<Verdict>,
    missing: Missing,
    /// How often in a row a live read or a proof was missing.
    failed_reads: u32,
}

impl Decision {
    /// The time until time alone may change the decision.
    pub(crate) fn pause(&self, now: MonotonicTime) -> Duration {
        let Missing { unreadable, unproven } = &self.missing;
        let sure = |verdict: &&Verdict| {
            let suspect = verdict.lease.as_ref().and_then(|lease| lease.suspect.as_ref());
            suspect.is_none_or(|suspect| {
                !unreadable.contains_key(&suspect.lease)
                    && (unproven.is_none() || suspect.deadline.is_none())
            })
        };
        let next = self.verdicts.iter().filter(sure).filter_map(|verdict| verdict.requeue_at).min();
        let pause = next.map_or(RESYNC, |next| next.since(now)).min(RESYNC);
        if self.missing.nothing() { pause } else { pause.min(backoff(self.failed_reads)) }
    }
}

/// Decides. An instance is pruned only after a live read of its Lease (client required). Suspects that are
/// known beforehand are read at once. Otherwise the first decision shows the suspects, and a second one uses
/// the reads.
pub(crate) async fn decide(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Inputs,
    context: &Context,
) -> Decision {
    let mut suspects = in_doubt(registration, ttl, context);
    if suspects.is_empty() {
        let missing = Missing::default();
        let verdicts = judge(registration, ttl, stage, &missing, context);
        suspects = Suspect::of(&verdicts);
        if suspects.is_empty() {
            note_pruning(registration, &verdicts, &HashMap::new(), stage, context);
            return Decision { verdicts, missing, failed_reads: 0 };
        }
    }
    let deadlines: HashMap<Arc<str>, MonotonicTime> = suspects
        .iter()
        .filter_map(|suspect| Some((suspect.lease.clone(), suspect.deadline?)))
        .collect();
    let missing = {
        let _step = context.metrics.begin(Step::Verify);
        verify::suspects(&registration.key, suspects, context).await
    };
    if !missing.nothing() {
        context.metrics.failed(Step::Verify);
    }
    let failed_reads = context.remember(&registration.key, &registration.uid, |memory| {
        let failed = if missing.nothing() { 0 } else { memory.failed_reads.saturating_add(1) };
        memory.failed_reads = failed;
        failed
    });
    if missing.unproven.is_some() {
        context.unproven().insert(registration.key.clone());
    }
    let verdicts = judge(registration, ttl, stage, &missing, context);
    note_pruning(registration, &verdicts, &deadlines, stage, context);
    Decision { verdicts, missing, failed_reads }
}

/// The suspects that are known beforehand: those that the last decision foresaw, and the instances with Leases
/// that the watch has lost. This saves one decision, which takes longer the larger the registration is. The
/// proof of a live read does not depend on what asked for it. It is also necessary: no decision mentions an
/// instance that is gone together with its Pod, so no decision would ask for the live read after which its
/// Lease is forgotten.
fn in_doubt(registration: &Registration, ttl: &TtlHistory, context: &Context) -> Vec<Suspect> {
    let Registration { key, uid, .. } = registration;
    // The expected_expiries suspects are used once. The next decision foresees them anew.
    let expected_expiries =
        context.remember(key, uid, |memory| std::mem::take(&mut memory.expected_expiries));
    let evidence = Evidence::known(registration, &context.path(), &context.guard());
    let mut suspects = evidence.in_doubt(
        expected_expiries,
        registration,
        ttl,
        &context.index(),
        context.clock.now(),
    );
    context.observer.suspects(&mut suspects);
    suspects
}

/// Notes the deadlines of the instances to be pruned until the API server confirms the write. The write may
/// take several attempts.
fn note_pruning(
    registration: &Registration,
    verdicts: &[Verdict],
    deadlines: &HashMap<Arc<str>, MonotonicTime>,
    stage: &Inputs,
    context: &Context,
) {
    if registration.dry_run {
        return;
    }
    let expired: HashMap<&Arc<str>, &Verdict> = verdicts
        .iter()
        .filter(|verdict| verdict.state == InstanceState::Expired)
        .filter_map(|verdict| Some((&verdict.lease.as_ref()?.decision.lease, verdict)))
        .collect();
    context.remember(&registration.key, &registration.uid, |memory| {
        // An instance that has beaten in the meantime is not to be pruned any more.
        memory.pruning.retain(|lease, _| expired.contains_key(lease));
        for (lease, deadline) in deadlines {
            if expired.get(lease).is_some_and(|verdict| verdict.is_at(&stage.snapshot.published)) {
                memory.pruning.insert(lease.clone(), *deadline);
            }
        }
    });
}

/// Decides from what is known now, and notes the outcome in the index. It decides again if, in the meantime, an
/// instance that the decision would remove has beaten, or a Lease with a verdict has gone. If another beat that
/// makes a difference has arrived, the decision stands, and the registration is woken.
pub(crate) fn judge(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Inputs,
    missing: &Missing,
    context: &Context,
) -> Vec<Verdict> {
    let _step = context.metrics.begin(Step::Decide);
    loop {
        let cordons = Cordons::stand(registration, &mut context.index());
        let mut records = context.index().records_of(&registration.key);
        let now = context.clock.now();
        let mut evidence = Evidence::gather(
            registration,
            ttl,
            &records,
            &context.path(),
            &mut context.guard(),
            &context.index(),
            &context.world(),
            now,
        );
        evidence.unproven.clone_from(&missing.unproven);
        let mut inputs = Undecided {
            registration,
            records: &mut records,
            evidence: &mut evidence,
            ttl,
            published: &stage.snapshot.published,
            now,
        };
        context.observer.decides(&mut inputs);
        let Undecided { ttl, published, .. } = inputs;
        let known = Known {
            registration,
            ttl,
            stage,
            missing,
            cordons: &cordons,
            records: &records,
            published,
        };
        let verdicts = known.decide(&evidence, now, context);
        let outcomes = verdicts.iter().filter_map(Verdict::lease_decision);
        let settlement = context.index().commit(&registration.key, outcomes, now);
        match settlement {
            CommitResult::Accepted => {}
            // Wakes the registration even if another decision follows in this run: no record would show that it
            // considered the beat.
            CommitResult::AcceptedForNow => {
                context.wake([registration.key.clone()]);
            }
            CommitResult::Overtaken => continue,
        }
        let decided = Decided { registration, records: &records, verdicts: &verdicts, at: now };
        context.observer.decided(&decided);
        return verdicts;
    }
}

/// The input of a decision, except the evidence.
#[derive(Clone, Copy)]
struct Known<'a> {
    registration: &'a Registration,
    ttl: &'a TtlHistory,
    stage: &'a Inputs,
    missing: &'a Missing,
    cordons: &'a Cordons,
    records: &'a [Record],
    published: &'a AddressSet,
}

impl Known<'_> {
    fn decide(self, evidence: &Evidence, now: MonotonicTime, context: &Context) -> Vec<Verdict> {
        let Self { registration, ttl, stage, missing, cordons, records, published } = self;
        let pods = ask(registration, records, stage, context);
        decide::decide(&Facts {
            registration,
            ttl,
            records,
            pods: &pods.by_name,
            zones: &pods.zones,
            families: stage.families(),
            service: &registration.service_name,
            ports: &preconditions::common_ports(registration, stage.service.as_deref()),
            shared_ports: OnceCell::new(),
            published,
            publishes: &|address, port| snapshot::publishes(&stage.snapshot.slices, address, port),
            ranges: &context.settings.outside_ranges,
            owner_of: &|address: IpAddr| context.world().owner_of_address(address),
            unreadable: &missing.unreadable,
            evidence,
            frozen: stage.frozen(),
            term_began: context.term_began(),
            adopted: &stage.adoption.instances,
            cordons: &cordons.held,
            now,
        })
    }
}

/// Notes which instances the slices show as published. It decides nothing: without a proof no instance counts
/// as dead.
fn note_published(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Inputs,
    context: &Context,
) {
    let cordons = Cordons::stand(registration, &mut context.index());
    let records = context.index().records_of(&registration.key);
    let known = Evidence::known(registration, &context.path(), &context.guard());
    let unproven = Evidence { probed: None, ..known };
    let missing = &Missing::default();
    let known = Known {
        registration,
        ttl,
        stage,
        missing,
        cordons: &cordons,
        records: &records,
        published: &stage.snapshot.published,
    };
    let verdicts = known.decide(&unproven, context.clock.now(), context);
    let published = verdicts.iter().filter_map(Verdict::lease_decision);
    context.index().note_published(&registration.key, published);
}

/// Gathers the Pods of the records. Notes what else the decision depends on, so that a change of it causes a
/// new decision.
fn ask(
    registration: &Registration,
    records: &[Record],
    stage: &Inputs,
    context: &Context,
) -> snapshot::Pods {
    let mut world = context.world();
    let adopted = &stage.adoption.instances;
    let mut pods = snapshot::pods(&registration.key.namespace, records, adopted, &world);
    let (nodes, ranges) = (std::mem::take(&mut pods.nodes), &context.settings.outside_ranges);
    let asked = Asked::of(registration, records, stage, ranges, nodes);
    world.dependents.note(&registration.key, asked);
    pods
}

/// Adds the former addresses of the instances to a stage on which nothing may be changed. After a start only
/// the status has them.
pub(crate) fn recall_earlier(
    object: &ServiceRegistration,
    registration: &Registration,
    stage: &mut Inputs,
    context: &Context,
) {
    if stage.is_closed() {
        let told = || object.status.as_ref().map(Earlier::from_status).unwrap_or_default();
        stage.earlier = context.remember(&registration.key, &registration.uid, |memory| {
            memory.earlier.get_or_insert_with(|| (None, Arc::new(told()))).1.clone()
        });
    }
}

/// Notes the addresses of the instances after they have been published.
pub(crate) fn note_earlier(registration: &Registration, stage: &Inputs, context: &Context) {
    if stage.is_closed() || registration.dry_run {
        return;
    }
    context.remember(&registration.key, &registration.uid, |memory| {
        let noted = memory.earlier.as_ref().map(|(generation, _)| *generation);
        if noted != Some(registration.generation) || registration.generation.is_none() {
            let earlier = Arc::new(Earlier::declared(registration));
            memory.earlier = Some((registration.generation, earlier));
        }
    });
}

pub(crate) fn ttl_history(registration: &Registration, context: &Context) -> TtlHistory {
    context.remember(&registration.key, &registration.uid, |memory| {
        // The watch of the registrations keeps it up to date.
        memory.ttl.get_or_insert_with(|| TtlHistory::new(registration.ttl)).clone()
    })
}

/// Decides about every registration once from what is known, without reads and writes, and notes the outcome in
/// the index. So the index begins the term as if this process had led before. First the published instances of
/// all registrations are noted, since the outage guard considers all of them at the first decision (L6).
pub(crate) async fn warm_up(objects: &[Arc<ServiceRegistration>], context: &Context) {
    for_each(objects, context, note_published).await;
    context.guard().begin_term();
    for_each(objects, context, |registration, ttl, stage, context| {
        judge(registration, ttl, stage, &Missing::default(), context);
    })
    .await;
}

async fn for_each(
    objects: &[Arc<ServiceRegistration>],
    context: &Context,
    step: impl Fn(&Registration, &TtlHistory, &Inputs, &Context),
) {
    for object in objects {
        let registration = snapshot::registration(object, &context.world());
        let ttl = ttl_history(&registration, context);
        let mut stage = inputs::as_known(&registration, context);
        recall_earlier(object, &registration, &mut stage, context);
        step(&registration, &ttl, &stage, context);
        // Beats can be processed between two registrations.
        tokio::task::yield_now().await;
    }
}
