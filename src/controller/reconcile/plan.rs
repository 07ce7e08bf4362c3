//! The plan step: which writes make the cluster as it was decided.

use std::sync::Arc;

use super::subject::Subject;
use crate::controller::{
    clock::Clock,
    metrics::{groups::Step, process::Metrics},
    states::States,
};
use beatkeeper_core::plan::write::Plan;
use beatkeeper_core::{
    decide::verdict::Verdict,
    inputs::Inputs,
    plan::{
        build::{self, PlanSettings},
        change_limits::Permits,
    },
    vocabulary::monotonic_time::MonotonicTime,
};

/// Plans the writes of registrations.
pub(crate) struct Planner {
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

impl Planner {
    /// Plans the writes. Changes that a tenant can cause are rate-limited ([`temper`](beatkeeper_core::plan::change_limits)),
    /// except in a dry run, which writes nothing.
    pub(crate) fn plan(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        verdicts: &[Verdict],
        permits: &mut Permits,
    ) -> Planned {
        let _step = self.metrics.begin(Step::Plan);
        let _span = subject.trace.step("plan");
        let (registration, clocks) = (&subject.registration, self.clock.clocks());
        if registration.dry_run {
            let plan = build::build(registration, inputs, verdicts, self.style, clocks.wall);
            return Planned { plan, again_at: permits.requeue_at() };
        }
        let restrain = |endpoints| {
            self.states.limits(subject.key(), |limits| {
                limits.endpoints.limit(endpoints, &inputs.snapshot.slices, permits, clocks.now)
            })
        };
        let (style, wall) = (self.style, clocks.wall);
        let mut plan = build::build_limited(registration, inputs, verdicts, style, wall, restrain);
        let paused_until = self.pause_endpoints(subject, &mut plan);
        Planned { plan, again_at: permits.requeue_at().into_iter().chain(paused_until).min() }
    }

    /// Removes an update of the Endpoints from a plan during the pause after the last update
    /// ([`after_write`](crate::controller::backoff::after_write)). One Endpoints object holds all instances: each
    /// change of one instance writes all of them again. The work of the API server for that delays the writes of the
    /// slices, and nearly all consumers read the slices. Returns the end of the pause if an update was removed. Then
    /// the Endpoints are planned again.
    fn pause_endpoints(&self, subject: &Subject, plan: &mut Plan) -> Option<MonotonicTime> {
        let until = self.states.with(subject.key(), subject.uid(), |it| it.endpoints_paused_until);
        (self.clock.now() < until && plan.leave_endpoints_as_they_are()).then_some(until)
    }
}
