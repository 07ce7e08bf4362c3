//! The open requests: beats that wait for a verdict, for their batch, or for its acknowledgement.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use crate::{
    carriers::frames::{InstanceId, Sequence},
    vocabulary::monotonic_time::MonotonicTime,
};

/// The number of a request. The process does not use a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An open request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The instance that beats.
    pub(super) id: InstanceId,
    /// When the instance is told to try again.
    pub(super) until: MonotonicTime,
}

/// A batch without an acknowledgement.
#[derive(Debug)]
struct UnderWay {
    batch: Sequence,
    sent: MonotonicTime,
    requests: Vec<RequestId>,
}

/// All open requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: HashMap<RequestId, Request>,
    /// Those that wait for the verdict on their instance.
    asked: HashMap<InstanceId, Vec<RequestId>>,
    due: Vec<RequestId>,
    due_since: Option<MonotonicTime>,
    under_way: VecDeque<UnderWay>,
    look_at_asked: MonotonicTime,
}

/// How often requests that wait for a verdict are looked at: there may be a hundred thousand.
const LOOK_AT_ASKED_EVERY: Duration = Duration::from_millis(250);

impl Requests {
    /// Takes in a request that the next batch may carry.
    pub(super) fn open(&mut self, number: RequestId, request: Request, now: MonotonicTime) {
        self.open.insert(number, request);
        self.make_due(number, now);
    }

    /// Takes in a request that waits for the verdict on its instance. The next batch carries its beat all the same: a
    /// replica that leads later has to know of it.
    pub(super) fn ask(&mut self, number: RequestId, request: Request, now: MonotonicTime) {
        self.open(number, request, now);
        self.asked.entry(request.id).or_default().push(number);
    }

    pub(super) fn close(&mut self, number: RequestId) {
        self.open.remove(&number);
    }

    /// The instance may renew: the next batch carries what has waited for that.
    pub(super) fn allow(&mut self, id: InstanceId, now: MonotonicTime) {
        for number in self.asked.remove(&id).unwrap_or_default() {
            self.make_due(number, now);
        }
    }

    /// The instance may not renew. Returns the requests that have waited for a verdict. They are closed.
    pub(super) fn refuse(&mut self, id: InstanceId) -> Vec<RequestId> {
        let waited = self.asked.remove(&id).unwrap_or_default();
        waited.into_iter().filter(|number| self.open.remove(number).is_some()).collect()
    }

    /// Closes all requests.
    pub(super) fn close_all(&mut self) -> Vec<RequestId> {
        let mut closed: Vec<RequestId> = self.open.drain().map(|(number, _)| number).collect();
        closed.sort_unstable();
        closed
    }

    /// Since when a request waits for its batch.
    pub(super) fn due_since(&self) -> Option<MonotonicTime> {
        self.due_since
    }

    /// How many requests wait for their batch.
    pub(super) fn due(&self) -> usize {
        self.due.len()
    }

    /// When the oldest batch without an acknowledgement was sent.
    pub(super) fn oldest_under_way(&self) -> Option<MonotonicTime> {
        self.under_way.front().map(|batch| batch.sent)
    }

    /// Puts all that is due into a batch. Returns the instances, each once.
    ///
    /// An acknowledgement accepts only beats of instances that were judged when the batch was sent. The others go on
    /// waiting for their verdict.
    pub(super) fn send(
        &mut self,
        batch: Sequence,
        is_judged: impl Fn(InstanceId) -> bool,
        now: MonotonicTime,
    ) -> Vec<InstanceId> {
        self.due_since = None;
        let (mut seen, mut ids, mut requests) = (HashSet::new(), Vec::new(), Vec::new());
        for number in std::mem::take(&mut self.due) {
            let Some(Request { id, .. }) = self.open.get(&number) else { continue };
            if seen.insert(*id) {
                ids.push(*id);
            }
            if is_judged(*id) {
                requests.push(number);
            }
        }
        if !requests.is_empty() {
            self.under_way.push_back(UnderWay { batch, sent: now, requests });
        }
        ids
    }

    /// Closes the requests of a batch that the leader holds, but for those instances that it could not take in. An
    /// acknowledgement that is late changes nothing: the requests are sent again.
    pub(super) fn acknowledged(
        &mut self,
        batch: Sequence,
        not_held: &[InstanceId],
        now: MonotonicTime,
        within: Duration,
    ) -> Vec<(RequestId, InstanceId)> {
        let Some(place) = self.under_way.iter().position(|known| known.batch == batch) else {
            return Vec::new();
        };
        if now.since(self.under_way[place].sent) > within {
            return Vec::new();
        }
        let done = self.under_way.remove(place).map(|done| done.requests).unwrap_or_default();
        let not_held: HashSet<&InstanceId> = not_held.iter().collect();
        let mut closed = Vec::new();
        for number in done {
            let Some(Request { id, .. }) = self.open.get(&number).copied() else { continue };
            if not_held.contains(&id) {
                self.asked.entry(id).or_default().push(number);
            } else {
                self.open.remove(&number);
                closed.push((number, id));
            }
        }
        closed
    }

    /// Lets the next batch carry again what no leader has acknowledged in time. Returns the requests that have waited
    /// too long. They are closed.
    pub(super) fn send_again(&mut self, within: Duration, now: MonotonicTime) -> Vec<RequestId> {
        let mut late = Vec::new();
        while self.under_way.front().is_some_and(|batch| now.since(batch.sent) >= within) {
            for number in self.under_way.pop_front().map(|batch| batch.requests).unwrap_or_default()
            {
                match self.open.get(&number) {
                    Some(request) if request.until <= now => late.push(number),
                    Some(_) => self.make_due(number, now),
                    None => {}
                }
            }
        }
        if now >= self.look_at_asked {
            self.look_at_asked = now + LOOK_AT_ASKED_EVERY;
            late.extend(self.asked_for_too_long(now));
        }
        late.sort_unstable();
        for number in &late {
            self.open.remove(number);
        }
        late
    }

    fn asked_for_too_long(&mut self, now: MonotonicTime) -> Vec<RequestId> {
        let mut late = Vec::new();
        for waiting in self.asked.values_mut() {
            waiting.retain(|number| {
                let request = self.open.get(number);
                late.extend(request.filter(|request| request.until <= now).map(|_| *number));
                request.is_some_and(|request| now < request.until)
            });
        }
        self.asked.retain(|_, waiting| !waiting.is_empty());
        late
    }

    fn make_due(&mut self, number: RequestId, now: MonotonicTime) {
        self.due.push(number);
        self.due_since.get_or_insert(now);
    }
}
