//! The plan step: which writes make the cluster as it was decided.

use std::sync::Arc;

use super::subject::Subject;
use crate::controller::{
    clock::Clock,
    metrics::{groups::Step, process::Metrics},
    observer::{ComparedPlans, Observer},
    states::States,
};
use beatkeeper_core::plan::write::{Plan, Write};
use beatkeeper_core::{
    decide::{kept::KeptDecision, verdict::Verdict},
    inputs::Inputs,
    plan::{
        build::{self, PlanPremise, PlanSettings},
        change_limits::{EndpointLimiter, Permits},
        endpoint_conflicts,
        kept::{ChangedPlan, KeptPlan, Since},
    },
    report::status::Clocks,
    vocabulary::monotonic_time::MonotonicTime,
};

/// Plans the writes of registrations.
pub(crate) struct Planner {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Clock,
    pub(crate) states: Arc<States>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) style: PlanSettings,
}

/// A plan, and when to plan again because a change had to wait.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) again_at: Option<MonotonicTime>,
}

/// What is planned for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    subject: &'a Subject,
    inputs: &'a Inputs,
    verdicts: &'a Arc<Vec<Verdict>>,
    clocks: Clocks,
}

/// The decision that is planned for, if it is kept, and the last plan, if it belongs to that decision.
struct Kept {
    decision: Box<KeptDecision>,
    premise: PlanPremise,
    plan: Option<Box<KeptPlan>>,
}

impl Planner {
    /// Plans the writes. Changes that a tenant can cause are rate-limited ([`temper`](beatkeeper_core::plan::change_limits)),
    /// except in a dry run, which writes nothing.
    pub(crate) fn plan(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        verdicts: &Arc<Vec<Verdict>>,
        permits: &mut Permits,
    ) -> Planned {
        let _step = self.metrics.begin(Step::Plan);
        let _span = subject.trace.step("plan");
        let (registration, clocks) = (&subject.registration, self.clock.clocks());
        if registration.dry_run {
            let plan = build::build(registration, inputs, verdicts, self.style, clocks.wall);
            return Planned { plan, again_at: permits.requeue_at() };
        }
        let wanted = Wanted { subject, inputs, verdicts, clocks };
        let mut kept = self.take_kept(wanted);
        let changed = kept.as_mut().and_then(|kept| self.plan_changes(wanted, kept, permits));
        let planned =
            changed.unwrap_or_else(|| self.plan_everything(wanted, kept.as_mut(), permits));
        self.put_back(wanted, kept);
        planned
    }

    /// Plans for what has changed since the last plan. `None` if everything has to be planned.
    fn plan_changes(
        &self,
        wanted: Wanted<'_>,
        kept: &mut Kept,
        permits: &mut Permits,
    ) -> Option<Planned> {
        let Wanted { subject, inputs, clocks, .. } = wanted;
        let Kept { decision, premise, plan } = kept;
        let publish_not_ready = premise.publish_not_ready;
        let plan = plan.as_mut()?;
        let since = Since {
            slices: &inputs.snapshot.slices,
            endpoints: inputs.snapshot.endpoints.as_ref(),
            touched: decision.take_touched(),
            wall: clocks.wall,
        };
        // The same limits are to be asked a second time.
        let again = self.observer.compares().then(|| {
            let limiter = self.states.limits(subject.key(), |limits| limits.endpoints.clone());
            (limiter, permits.clone())
        });
        let changed = plan.plan(
            since,
            |addresses| {
                endpoint_conflicts::endpoints(decision.claims_at(addresses), publish_not_ready)
            },
            |endpoints, slices| {
                self.states.limits(subject.key(), |limits| {
                    limits.endpoints.limit(endpoints, slices, permits, clocks.now)
                })
            },
        )?;
        if let Some(again) = again {
            self.compare(wanted, &changed, again);
        }
        let ChangedPlan { slices, endpoints_may_differ } = changed;
        let endpoints_at = match endpoints_may_differ {
            false => None,
            // An instance leaves the slices first, and the next plan is for the Endpoints.
            true => match self.endpoints_paused_until(subject) {
                Some(until) => Some(until),
                None if !slices.is_empty() && plan.defer_endpoints() => Some(clocks.now),
                None => return None,
            },
        };
        let again_at = permits.requeue_at().into_iter().chain(endpoints_at).min();
        Some(Planned { plan: slices, again_at })
    }

    fn compare(
        &self,
        wanted: Wanted<'_>,
        changed: &ChangedPlan,
        (mut limiter, mut permits): (EndpointLimiter, Permits),
    ) {
        let all = self.build(wanted, &mut limiter, &mut permits);
        let registration = &wanted.subject.registration;
        self.observer.compared_plans(&ComparedPlans { registration, changed, all: &all });
    }

    fn plan_everything(
        &self,
        wanted: Wanted<'_>,
        kept: Option<&mut Kept>,
        permits: &mut Permits,
    ) -> Planned {
        let subject = wanted.subject;
        let mut plan = self
            .states
            .limits(subject.key(), |limits| self.build(wanted, &mut limits.endpoints, permits));
        let paused_until =
            self.endpoints_paused_until(subject).filter(|_| plan.leave_endpoints_as_they_are());
        if let Some(kept) = kept {
            let is_listed = paused_until.is_none() && plan.is_empty();
            let is_settled =
                permits.requeue_at().is_none() && plan.writes().all(Write::is_of_endpoints);
            kept.note(wanted.inputs, is_settled, is_listed);
        }
        Planned { plan, again_at: permits.requeue_at().into_iter().chain(paused_until).min() }
    }

    fn build(
        &self,
        wanted: Wanted<'_>,
        limiter: &mut EndpointLimiter,
        permits: &mut Permits,
    ) -> Plan {
        let Wanted { subject, inputs, verdicts, clocks } = wanted;
        let slices = &inputs.snapshot.slices;
        let restrain = |endpoints| limiter.limit(endpoints, slices, permits, clocks.now);
        let registration = &subject.registration;
        build::build_limited(registration, inputs, verdicts, self.style, clocks.wall, restrain)
    }

    /// When the pause after the last update of the Endpoints ends
    /// ([`after_write`](crate::controller::backoff::after_write)), if it has not ended yet. One Endpoints object holds all
    /// instances: each change of one instance writes all of them again. The work of the API server for that delays the
    /// writes of the slices, and nearly all consumers read the slices.
    fn endpoints_paused_until(&self, subject: &Subject) -> Option<MonotonicTime> {
        let until = self.states.with(subject.key(), subject.uid(), |it| it.endpoints_paused_until);
        (self.clock.now() < until).then_some(until)
    }

    /// Takes the decision that is planned for, if it is kept. While something is refused, the place of an endpoint depends
    /// on more than slices and verdicts.
    fn take_kept(&self, wanted: Wanted<'_>) -> Option<Kept> {
        let Wanted { subject, inputs, verdicts, .. } = wanted;
        let (decision, plan) = self.states.with(subject.key(), subject.uid(), |state| {
            let is_planned_for = |kept: &mut Box<KeptDecision>| {
                Arc::ptr_eq(kept.verdicts(), verdicts) && inputs.held_back.is_empty()
            };
            let plan = state.plan.take();
            Some((state.kept.take_if(is_planned_for)?, plan))
        })?;
        let premise = PlanPremise::of(&subject.registration, inputs, self.style);
        let plan =
            plan.filter(|(ticket, plan)| *ticket == decision.ticket() && plan.rests_on(&premise));
        Some(Kept { decision, premise, plan: plan.map(|(_, plan)| plan) })
    }

    fn put_back(&self, wanted: Wanted<'_>, kept: Option<Kept>) {
        let Some(Kept { decision, plan, .. }) = kept else { return };
        self.states.with(wanted.subject.key(), wanted.subject.uid(), |state| {
            state.plan = plan.map(|plan| (decision.ticket(), plan));
            state.kept = Some(decision);
        });
    }
}

impl Kept {
    /// Notes what a plan for everything has found: whether the slices are as it was decided, and the Endpoints object.
    fn note(&mut self, inputs: &Inputs, is_settled: bool, is_listed: bool) {
        let touched = self.decision.take_touched();
        let endpoints = inputs.snapshot.endpoints.as_ref();
        let slices = &inputs.snapshot.slices;
        match &mut self.plan {
            Some(kept) if is_settled => kept.settle(slices, endpoints, is_listed),
            Some(kept) => kept.leave_open(touched),
            None if is_settled => {
                let premise = self.premise.clone();
                self.plan = Some(KeptPlan::after(premise, slices, endpoints, is_listed).into());
            }
            None => {}
        }
    }
}
