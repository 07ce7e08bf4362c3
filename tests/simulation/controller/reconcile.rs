//! Reconciling one registration. Mirrors reconcile.rs, stage.rs and establish.rs, but here the writes of
//! Endpoints never pause.

use std::{cell::OnceCell, collections::HashMap, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::{
    decide::{
        self,
        cordons::Cordons,
        evidence::Evidence,
        facts::{Cluster, Facts, Instances, Liveness, PublishedNow, TargetService},
        verdict::{Suspect, Verdict},
    },
    inputs::{Inputs, preconditions, snapshot},
    liveness::{index::CommitResult, proven_time::ProvenTime, ttl::TtlHistory},
    objects::{
        marks::{MANAGER, OWNED_BY_ANNOTATION, OwnerMark},
        registration::Registration,
        service::ServiceView,
    },
    plan::build,
    report::{
        applied::Applied,
        status::{self, Clocks},
        summary::DecisionSummary,
    },
    vocabulary::{address::AddressSet, key::Key, monotonic_time::MonotonicTime, version::Version},
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{Controller, verify::Missing, write::Outcome};
use crate::{
    api::{Answer, Call, Refusal},
    object::{Kind, Object},
    rules::Without,
};

const ATTEMPTS: usize = 5;
const RESYNC: Duration = Duration::from_secs(600);
const REPLACEMENT_GRACE: Duration = Duration::from_secs(10);

/// The result of a decision.
struct Decision {
    verdicts: Vec<Verdict>,
    missing: Missing,
    failed_reads: u32,
    /// When the decision was taken.
    taken: MonotonicTime,
}

impl Decision {
    /// Mirrors `Decision::pause`. The caller draws `backoff` beforehand.
    fn pause(&self, now: MonotonicTime, backoff: Duration) -> Duration {
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
        if self.missing.nothing() { pause } else { pause.min(backoff) }
    }
}

/// The same value as in reconcile.rs.
const UNTIL_READ_ANEW: Duration = Duration::from_millis(250);

impl Controller {
    /// Mirrors `reconcile` and `retry`. Returns the time until the next reconciliation.
    pub(super) async fn reconcile(
        self: Rc<Self>,
        object: Arc<ServiceRegistration>,
    ) -> Option<Duration> {
        let mut registration = Registration::validate(&object);
        let min_ready = registration.min_ready;
        if self.setup.without == Without::Protection {
            registration.min_ready = 0;
        }
        let ttl = self.ttl_history(&registration);
        for attempt in 1.. {
            if !self.may_write() {
                return None;
            }
            if self.index().awaits_relist() {
                return Some(UNTIL_READ_ANEW);
            }
            let stage = self.set_stage(&registration).await;
            let decision = self.decide(&registration, &ttl, &stage).await;
            self.breathe().await;
            let (style, wall) = (self.setup.style, self.wall());
            let plan = build::build(&registration, &stage, &decision.verdicts, style, wall);
            let (verdicts, taken) = (&decision.verdicts, decision.taken);
            let explanation = self.explain(min_ready, verdicts, taken);
            let applied = match self.apply(&registration, plan, explanation).await {
                Outcome::Done(applied) => applied.with_failure_of(&stage),
                Outcome::Conflict(_) if attempt < ATTEMPTS => continue,
                Outcome::Conflict(why) => {
                    Applied { failure: Some(why), ..Applied::default() }.with_failure_of(&stage)
                }
            };
            let applied =
                Applied { published: snapshot::published(&registration, &self.world()), ..applied };
            let failed = applied.failure.is_some();
            let failures = self.remember(&registration.key, &registration.uid, |memory| {
                memory.failures = if failed { memory.failures.saturating_add(1) } else { 0 };
                memory.failures
            });
            let now = self.now();
            let next = decision.pause(now, self.backoff(decision.failed_reads));
            let next = stage.requeue_at.map_or(next, |moment| next.min(moment.since(now)));
            let expected_expiries = Suspect::expected_expiries(&decision.verdicts);
            self.remember(&registration.key, &registration.uid, |memory| {
                memory.expected_expiries = expected_expiries;
            });
            let deadline = decision.verdicts.iter().filter_map(Verdict::deadline).min();
            self.await_deadline(&registration.key, deadline);
            let report = self.clone().publish_status(
                object,
                registration,
                decision.verdicts,
                stage.stall,
                applied,
            );
            self.spawn(report);
            return Some(if failed {
                self.backoff(failures).min(next.max(self.backoff(0)))
            } else {
                next
            });
        }
        None
    }

    fn backoff(&self, failures: u32) -> Duration {
        let longest = Duration::from_millis(200) * 2_u32.pow(failures.min(5));
        let share = u32::try_from(self.executor().random.between(50, 99)).expect("small");
        longest.min(Duration::from_secs(5)) * share / 100
    }

    /// Mirrors `decide`.
    async fn decide(
        self: &Rc<Self>,
        registration: &Registration,
        ttl: &TtlHistory,
        stage: &Inputs,
    ) -> Decision {
        let mut suspects = self.in_doubt(registration, ttl);
        if suspects.is_empty() {
            let missing = Missing::default();
            let (verdicts, taken) = self.judge(registration, ttl, stage, &missing).await;
            suspects = Suspect::of(&verdicts);
            if suspects.is_empty() {
                return Decision { verdicts, missing, failed_reads: 0, taken };
            }
        }
        let missing = self.verify(&registration.key, suspects).await;
        self.setup.check.tell(|| {
            let Missing { unreadable, unproven } = &missing;
            format!(
                "controller {} verified {}: {unreadable:?} {unproven:?}",
                self.place, registration.key
            )
        });
        let failed_reads = self.remember(&registration.key, &registration.uid, |memory| {
            let failed = if missing.nothing() { 0 } else { memory.failed_reads.saturating_add(1) };
            memory.failed_reads = failed;
            failed
        });
        if missing.unproven.is_some() {
            self.unproven.borrow_mut().insert(registration.key.clone());
        }
        let (verdicts, taken) = self.judge(registration, ttl, stage, &missing).await;
        Decision { verdicts, missing, failed_reads, taken }
    }

    /// Mirrors `in_doubt`.
    fn in_doubt(&self, registration: &Registration, ttl: &TtlHistory) -> Vec<Suspect> {
        let Registration { key, uid, .. } = registration;
        let expected_expiries =
            self.remember(key, uid, |memory| std::mem::take(&mut memory.expected_expiries));
        let evidence = Evidence::known(registration, &self.path.borrow(), &self.guard.borrow());
        let mut in_doubt =
            evidence.in_doubt(expected_expiries, registration, ttl, &self.index(), self.now());
        if self.setup.without == Without::TheMissing {
            in_doubt.retain(|suspect| suspect.deadline.is_some());
        }
        in_doubt
    }

    /// Mirrors `judge`.
    async fn judge(
        self: &Rc<Self>,
        registration: &Registration,
        ttl: &TtlHistory,
        stage: &Inputs,
        missing: &Missing,
    ) -> (Vec<Verdict>, MonotonicTime) {
        let key = &registration.key;
        let ports = preconditions::common_ports(registration, stage.service.as_deref());
        let unreadable: HashMap<Arc<str>, String> =
            missing.unreadable.iter().map(|(lease, told)| (lease.clone(), told.clone())).collect();
        let first = !self.remember(key, &registration.uid, |memory| {
            std::mem::replace(&mut memory.decided, true)
        });
        let nobody = AddressSet::new();
        let published = match self.setup.without {
            Without::Grace if first => &nobody,
            _ => &stage.snapshot.published,
        };
        loop {
            let cordons = Cordons::stand(registration, &mut self.index());
            let mut records = self.index().records_of(key);
            if self.setup.without == Without::SeenMoments {
                self.trust_wall_clocks(&mut records);
            }
            let pods = snapshot::pods(&key.namespace, &records, &[], &self.world());
            let now = self.now();
            let evidence = self.evidence(registration, ttl, &records, missing, now);
            let owner_of = |address: IpAddr| self.world().owner_of_address(address);
            let verdicts = decide::decide(&Facts {
                registration,
                instances: Instances { records: &records, adopted: &[], cordons: &cordons.held },
                liveness: Liveness {
                    ttl,
                    evidence: &evidence,
                    unreadable: &unreadable,
                    term_began: self.term_began.get(),
                },
                service: TargetService {
                    name: &registration.service_name,
                    families: stage.families(),
                    ports: &ports,
                    shared_ports: OnceCell::new(),
                },
                published: PublishedNow {
                    addresses: published,
                    contains: &|address, port| {
                        snapshot::publishes(&stage.snapshot.slices, address, port)
                    },
                    frozen: stage.frozen(),
                },
                cluster: Cluster {
                    pods: &pods.by_name,
                    zones: &pods.zones,
                    ranges: &self.setup.ranges,
                    owner_of: &owner_of,
                },
                now,
            });
            self.breathe().await;
            let outcomes = verdicts.iter().filter_map(Verdict::lease_decision);
            let settlement = self.index().commit(key, outcomes, now);
            if settlement == CommitResult::AcceptedForNow {
                self.wake([key.clone()]);
            }
            if settlement != CommitResult::Overtaken {
                self.setup.check.decided(self, registration, &records, &verdicts, now);
                return (verdicts, now);
            }
        }
    }

    fn evidence(
        &self,
        registration: &Registration,
        ttl: &TtlHistory,
        records: &[beatkeeper_core::liveness::index::Record],
        missing: &Missing,
        now: MonotonicTime,
    ) -> Evidence {
        let mut evidence = Evidence::gather(
            registration,
            ttl,
            records,
            &self.path.borrow(),
            &mut self.guard.borrow_mut(),
            &self.index(),
            &self.world(),
            now,
        );
        evidence.unproven.clone_from(&missing.unproven);
        match self.setup.without {
            Without::Probes => {
                evidence.path = ProvenTime::without_gaps();
                evidence.proven = ProvenTime::without_gaps();
                evidence.probed = Some(now);
            }
            Without::Guard => {
                evidence.proven.clone_from(&evidence.path);
                evidence.broken = None;
            }
            _ => {}
        }
        evidence
    }

    /// Implements [`Without::SeenMoments`].
    fn trust_wall_clocks(&self, records: &mut [beatkeeper_core::liveness::index::Record]) {
        let wall = self.wall().as_microsecond();
        for record in records {
            let Some(renewed) = record.token.renewed else { continue };
            let ago = u64::try_from((wall - renewed) / 1000).unwrap_or(0);
            record.seen = self.now() - Duration::from_millis(ago);
        }
    }

    /// Mirrors `note_ttl`, which the watch calls, and `ttl_history`.
    pub(super) fn ttl_history(&self, registration: &Registration) -> TtlHistory {
        let now = self.now();
        if self.setup.without == Without::TtlHistory {
            return TtlHistory::new(registration.ttl);
        }
        self.remember(&registration.key, &registration.uid, |memory| {
            let ttl = memory.ttl.get_or_insert_with(|| TtlHistory::new(registration.ttl));
            ttl.set(registration.ttl, now);
            ttl.clone()
        })
    }

    /// Mirrors `set` in stage.rs.
    async fn set_stage(self: &Rc<Self>, registration: &Registration) -> Inputs {
        let snapshot = snapshot::take(registration, &self.world());
        let known = snapshot.service.clone();
        let being_replaced = self.being_replaced(registration, known.as_deref());
        if let Some(stall) =
            preconditions::stall(registration, known.as_deref(), &snapshot.conflicts)
        {
            return Inputs::new(snapshot, known, Some(stall));
        }
        if let Some(until) = being_replaced {
            let stall = preconditions::service_gone(registration);
            return Inputs { requeue_at: Some(until), ..Inputs::new(snapshot, None, Some(stall)) };
        }
        match self.establish(registration, known).await {
            Ok((service, false)) => Inputs::new(snapshot, Some(service), None),
            Ok((service, true)) => {
                let snapshot = snapshot::take(registration, &self.world());
                let stall = preconditions::stall(registration, Some(&service), &snapshot.conflicts);
                Inputs::new(snapshot, Some(service), stall)
            }
            Err(refusal) => {
                let service = snapshot.service.clone();
                let failure = Some(format!("{refusal:?}"));
                Inputs { failure, ..Inputs::new(snapshot, service, None) }
            }
        }
    }

    fn being_replaced(
        &self,
        registration: &Registration,
        known: Option<&ServiceView>,
    ) -> Option<MonotonicTime> {
        let now = self.now();
        self.remember(&registration.key, &registration.uid, |memory| {
            if let Some(service) = known {
                memory.foreign_service = service.owner.is_none();
                memory.service_gone = None;
            }
            if known.is_some() || !memory.foreign_service {
                return None;
            }
            let until = *memory.service_gone.get_or_insert(now) + REPLACEMENT_GRACE;
            (now < until).then_some(until)
        })
    }

    /// Mirrors `service` in establish.rs. Here ports never change.
    async fn establish(
        self: &Rc<Self>,
        registration: &Registration,
        known: Option<Arc<ServiceView>>,
    ) -> Result<(Arc<ServiceView>, bool), Refusal> {
        if let Some(service) = known {
            return Ok((service, false));
        }
        let key = Key::new(&registration.key.namespace, &registration.service_name);
        let new = Object::Service(Arc::new(new_service(registration)));
        let answer = match self.call(Call::Create(new)).await {
            Err(Refusal::Conflict) => {
                self.world().refused::<Service>(&key, Version(0));
                self.call(Call::Get(Kind::Service, key)).await?
            }
            answer => answer?,
        };
        let Answer::Object(Object::Service(service)) = answer else {
            return Err(Refusal::Unavailable);
        };
        let view = Arc::new(ServiceView::of(&service));
        self.world().put_own((*service).clone());
        Ok((view, true))
    }

    /// Mirrors desk.rs and `status` in publish.rs, but gives up at the first failure: the next reconciliation
    /// reports again.
    async fn publish_status(
        self: Rc<Self>,
        object: Arc<ServiceRegistration>,
        registration: Registration,
        verdicts: Vec<Verdict>,
        stall: Option<beatkeeper_core::inputs::stall::Stall>,
        applied: Applied,
    ) {
        let key = registration.key.clone();
        let known = self.registrations.borrow().get(&key).cloned().unwrap_or(object);
        let mut version = Object::Registration(known.clone()).version();
        let mut prior = known.status.clone();
        let written = self.remember(&key, &registration.uid, |memory| memory.written.clone());
        if let Some((newer, status)) = written.filter(|(newer, _)| *newer > version) {
            (version, prior) = (newer, Some(status));
        }
        let account = DecisionSummary::of(verdicts, applied.published.all());
        for _ in 0..3 {
            let clocks = Clocks { now: self.now(), wall: self.wall() };
            let before = prior.clone().unwrap_or_default();
            let generation = registration.generation;
            let next =
                status::report(&before, generation, &account, stall.as_ref(), &applied, clocks);
            if prior.is_some() && !status::differs(&before, &next) {
                return;
            }
            let call = Call::Status {
                registration: key.clone(),
                version: version.to_string(),
                status: Box::new(next.clone()),
            };
            match self.call(call).await {
                Ok(Answer::Object(object)) => {
                    let version = object.version();
                    return self.remember(&key, &registration.uid, |memory| {
                        memory.written = Some((version, next));
                    });
                }
                Err(Refusal::Conflict) => {
                    let call = Call::Get(Kind::Registration, key.clone());
                    let Ok(Answer::Object(Object::Registration(current))) = self.call(call).await
                    else {
                        return;
                    };
                    prior.clone_from(&current.status);
                    version = Object::Registration(current).version();
                }
                _ => return,
            }
        }
    }
}

fn new_service(registration: &Registration) -> Service {
    let mark = OwnerMark::on_service(&registration.owner(), &registration.service_name);
    Service {
        metadata: ObjectMeta {
            name: Some(registration.service_name.clone()),
            namespace: Some(registration.key.namespace.clone()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into()),
            annotations: Some([(OWNED_BY_ANNOTATION.to_owned(), mark.value().to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: 80,
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
