//! The verdicts that are under way, and those that are due again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::{InstanceId, Verdict},
        set::PodUid,
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::Pace, turns::Turns},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::judge::{Judge, Judged, Question, REVIEWED_FOR};
use crate::controller::{clock::Clock, error::ApiError};

/// How many questions are asked at the same time.
const SIDE_BY_SIDE: usize = 16;
/// How long nothing is asked after a question that could not be answered, and after many in a row.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// Over how many moments the verdicts on instances of a former leader are spread.
const MOMENTS: u32 = 64;

type Instance = (PodUid, InstanceId);

/// Judges instances, a few at a time.
pub(super) struct Judging {
    judge: Arc<Judge>,
    clock: Clock,
    /// By the namespace of the token: a tenant with many instances delays no other one.
    waiting: Turns<Option<String>, (Instance, Question)>,
    /// The instances with a question that waits or is under way.
    asked: BTreeSet<Instance>,
    /// Until when nothing is asked, and the pause after the next failure.
    paused: (MonotonicTime, Duration),
    under_way: FuturesUnordered<BoxFuture<'static, (Instance, Judged)>>,
    /// When to judge an instance again.
    again: BTreeMap<Instance, MonotonicTime>,
    /// The pace that instances of a registration were told first since it was edited last.
    told: BTreeMap<Key, Pace>,
}

impl Judging {
    pub(super) fn new(judge: Arc<Judge>, clock: Clock) -> Self {
        let (waiting, under_way) = (Turns::default(), FuturesUnordered::new());
        let paused = (MonotonicTime::default(), PAUSE.0);
        let (asked, again, told) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { judge, clock, waiting, asked, paused, under_way, again, told }
    }

    /// Judges an instance. Returns the verdict if nothing has to be asked for it. What is asked already is not asked twice.
    pub(super) fn begin(&mut self, gateway: PodUid, id: InstanceId) -> Option<Verdict> {
        let instance = (gateway, id);
        match self.judge.question(&instance.0, id)? {
            Question::None(judged) => self.note(instance, judged),
            question => {
                if self.asked.insert(instance.clone()) {
                    let tenant = self.judge.tenant_of(&instance.0, id);
                    self.waiting.push(tenant, (instance, question));
                    self.fill();
                }
                None
            }
        }
    }

    /// Tells the instances of edited registrations their new pace. Those with a review that counts need no other one.
    pub(super) fn told_anew(&mut self) -> Vec<(Instance, Verdict)> {
        let edited = self.judge.edited_since(&self.told);
        let mut verdicts = Vec::new();
        for (registration, pace) in edited {
            let instances = self.judge.instances_of(&registration).into_iter();
            verdicts.extend(instances.map(|instance| (instance, Verdict::Allowed(pace))));
            self.told.insert(registration, pace);
        }
        verdicts
    }

    /// The next answer. Never returns while nothing is asked. The future may be dropped.
    pub(super) async fn next(&mut self) -> (PodUid, InstanceId, Option<Verdict>) {
        let Some((instance, judged)) = self.under_way.next().await else {
            return std::future::pending().await;
        };
        self.asked.remove(&instance);
        self.pause(judged.failed.as_ref());
        self.fill();
        let (gateway, id) = instance.clone();
        let verdict = self.note(instance, judged);
        (gateway, id, verdict)
    }

    /// Has instances judged that a former leader has allowed to renew: their rights may have been taken away, and their
    /// registrations edited. The moments are spread over the time for which a review counts.
    pub(super) fn judge_in_time(&mut self, instances: impl IntoIterator<Item = Instance>) {
        let now = self.clock.now();
        for instance in instances {
            let at = now + REVIEWED_FOR * (instance.1.0 % MOMENTS) / MOMENTS;
            self.again.entry(instance).or_insert(at);
        }
    }

    /// Asks nothing for a while after a failure: each question would fail, and be logged.
    fn pause(&mut self, failed: Option<&ApiError>) {
        let Some(error) = failed else {
            self.paused = (MonotonicTime::default(), PAUSE.0);
            return;
        };
        let (_, pause) = self.paused;
        if pause == PAUSE.0 {
            tracing::warn!(
                %error,
                "new instances of gateways cannot be judged, and wait; those that may renew go on: see that the API \
                 server answers, and that the operator may create subjectaccessreviews"
            );
        }
        self.paused = (self.clock.now() + pause, (pause * 2).min(PAUSE.1));
    }

    /// The instances that are due to be judged again. It also asks what a pause has kept back.
    pub(super) fn due(&mut self) -> Vec<Instance> {
        self.fill();
        let now = self.clock.now();
        let due: Vec<Instance> =
            self.again.iter().filter(|(_, at)| **at <= now).map(|(it, _)| it.clone()).collect();
        for instance in &due {
            self.again.remove(instance);
        }
        due
    }

    /// Another replica leads, and judges.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.asked.clear();
        self.under_way.clear();
        self.again.clear();
        self.told.clear();
    }

    fn note(&mut self, instance: Instance, judged: Judged) -> Option<Verdict> {
        let Judged { verdict, again_in, .. } = judged;
        if let Some(again_in) = again_in {
            self.again.insert(instance.clone(), self.clock.now() + again_in);
        }
        if let Some(Verdict::Allowed(pace)) = verdict
            && let Some(registration) = self.judge.registration_of(&instance.0, instance.1)
        {
            self.told.entry(registration).or_insert(pace);
        }
        verdict
    }

    fn fill(&mut self) {
        while self.under_way.len() < SIDE_BY_SIDE
            && self.paused.0 <= self.clock.now()
            && let Some((instance, question)) = self.waiting.pop()
        {
            let judge = self.judge.clone();
            let asked = async move { (instance, judge.answer(question).await) };
            self.under_way.push(asked.boxed());
        }
    }
}
