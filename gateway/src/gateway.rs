//! The state machine of the gateway, with what it needs of a process: requests that wait, streams to write to, and a timer.
//!
//! All of it belongs to one thread. A call goes in, and its outputs are carried out before it returns.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::{Down, Incarnation, Question, ReplicaName, Up},
        gateway::{Gateway, Output, RequestId},
        rights::Identity,
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};
use tokio::{sync::Notify, time::sleep_until};

use crate::{
    clock::Clock,
    metrics::Metrics,
    outbox::{Outbox, Undeliverable},
    settings::StreamLimits,
    wire::codec,
};
use waiting::{Pending, Waiting};

pub mod waiting;

/// A gateway without a stream for so long may have been found not ready.
const UNREADY_AFTER: Duration = Duration::from_secs(2);

/// A stream of a replica. A replica that connects anew gets another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamNumber(u64);

struct Stream {
    number: StreamNumber,
    outbox: Rc<Outbox>,
}

/// The gateway of this process.
pub struct Hub {
    /// The clocks.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Rc<Metrics>,
    limits: StreamLimits,
    gateway: RefCell<Gateway>,
    waiting: Rc<Waiting>,
    streams: RefCell<BTreeMap<ReplicaName, Stream>>,
    last: Cell<u64>,
    /// The last open question of each replica. An answer to it answers the earlier ones, too.
    questions: RefCell<BTreeMap<ReplicaName, Question>>,
    asked: Notify,
    /// Since when there has been no stream.
    cut_off: Cell<Option<MonotonicTime>>,
    /// From when on the path is proven.
    proves_from: Cell<MonotonicTime>,
    /// The moment that the timer waits for.
    armed: Cell<MonotonicTime>,
    earlier: Notify,
}

impl Hub {
    /// A gateway that starts now.
    pub fn new(
        me: Incarnation,
        lease_duration: Duration,
        limits: StreamLimits,
        clock: Clock,
        metrics: Rc<Metrics>,
    ) -> Self {
        let now = clock.now();
        Self {
            clock,
            metrics,
            limits,
            gateway: RefCell::new(Gateway::new(me, lease_duration, now)),
            waiting: Rc::default(),
            streams: RefCell::default(),
            last: Cell::new(0),
            questions: RefCell::default(),
            asked: Notify::new(),
            cut_off: Cell::new(Some(MonotonicTime::default())),
            proves_from: Cell::new(now),
            armed: Cell::new(now),
            earlier: Notify::new(),
        }
    }

    fn next_number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// Lets these Leases beat by this identity. The answers are in the same order. Dropping the returned value cancels
    /// what has no answer yet.
    pub fn beat(&self, leases: &[Key], identity: &Identity) -> Pending {
        let now = self.clock.now();
        let requests: Vec<_> = leases.iter().map(|_| RequestId(self.next_number())).collect();
        let pending = self.waiting.open(requests.clone());
        for (request, lease) in requests.into_iter().zip(leases) {
            self.gateway.borrow_mut().beat(request, lease, identity, now);
        }
        self.carry_out();
        pending
    }

    /// How many beats wait for their answers.
    pub fn open_beats(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a leader has allowed this identity to renew this Lease.
    pub fn may_renew(&self, lease: &Key, identity: &Identity) -> bool {
        self.gateway.borrow().may_renew(lease, identity)
    }

    /// How many replicas have a stream on which batches are sent.
    pub fn open_streams(&self) -> usize {
        self.gateway.borrow().streams()
    }

    /// A replica has opened a stream. A stream that it had before ends.
    pub fn connected(&self, replica: &ReplicaName) -> (StreamNumber, Rc<Outbox>) {
        self.warm_up();
        let number = StreamNumber(self.next_number());
        let outbox = Rc::new(Outbox::new(self.limits.waiting_bytes));
        let stream = Stream { number, outbox: outbox.clone() };
        if let Some(before) = self.streams.borrow_mut().insert(replica.clone(), stream) {
            before.outbox.close();
            self.metrics.stream_ended("replaced");
        }
        self.note_streams();
        // The process may be another one, with lower numbers.
        self.questions.borrow_mut().remove(replica);
        self.gateway.borrow_mut().connected(replica);
        self.carry_out();
        (number, outbox)
    }

    /// Begins to warm up, if there was no stream. The gateway is ready from now on, and its Service leads to it some
    /// seconds later. Until then no instance can beat here, although the gateway itself reaches its address.
    fn warm_up(&self) {
        let Some(since) = self.cut_off.take() else { return };
        let now = self.clock.now();
        if since == MonotonicTime::default() || now.since(since) >= UNREADY_AFTER {
            self.proves_from.set(now + self.limits.warm_up);
        }
    }

    fn note_streams(&self) {
        let count = self.streams.borrow().len();
        if count == 0 {
            self.cut_off.set(self.cut_off.get().or(Some(self.clock.now())));
        }
        self.metrics.streams.set(gauge(count));
    }

    /// A stream has ended. The end of a stream that was replaced says nothing about its successor.
    pub fn disconnected(&self, replica: &ReplicaName, number: StreamNumber, reason: &'static str) {
        if !self.is_current(replica, number) {
            return;
        }
        if let Some(stream) = self.streams.borrow_mut().remove(replica) {
            stream.outbox.close();
        }
        self.metrics.stream_ended(reason);
        self.note_streams();
        self.gateway.borrow_mut().disconnected(replica);
        self.carry_out();
    }

    fn is_current(&self, replica: &ReplicaName, number: StreamNumber) -> bool {
        self.streams.borrow().get(replica).is_some_and(|stream| stream.number == number)
    }

    /// A frame of a replica. Returns whether its stream is the present one.
    pub fn receive(&self, replica: &ReplicaName, number: StreamNumber, frame: Down) -> bool {
        if !self.is_current(replica, number) {
            return false;
        }
        self.gateway.borrow_mut().receive(replica, frame, self.clock.now());
        self.carry_out();
        true
    }

    /// The questions about the path of the beats that have come since the last call, the last one of each replica. Waits
    /// for at least one.
    pub async fn questions(&self) -> Vec<(ReplicaName, Question)> {
        loop {
            let proves_from = self.proves_from.get();
            if self.clock.now() < proves_from {
                sleep_until(self.clock.instant(proves_from)).await;
                continue;
            }
            let questions = std::mem::take(&mut *self.questions.borrow_mut());
            if !questions.is_empty() {
                return questions.into_iter().collect();
            }
            self.asked.notified().await;
        }
    }

    /// A beat of the gateway's own that was sent after these questions came has arrived.
    pub fn path_is_proven(&self, questions: &[(ReplicaName, Question)]) {
        let now = self.clock.now();
        for (replica, question) in questions {
            self.gateway.borrow_mut().path_is_proven(replica, *question, now);
        }
        self.carry_out();
    }

    /// Does what is due, for ever.
    pub async fn keep_time(&self) {
        loop {
            let at = self.gateway.borrow().next_wake();
            self.armed.set(at);
            tokio::select! {
                () = sleep_until(self.clock.instant(at)) => {
                    self.gateway.borrow_mut().wake(self.clock.now());
                    self.carry_out();
                }
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Ends the gateway: open requests are answered, and the replicas are told.
    pub fn leave(&self) {
        self.gateway.borrow_mut().leave(self.clock.now());
        self.carry_out();
        for stream in self.streams.borrow().values() {
            stream.outbox.finish();
        }
    }

    fn carry_out(&self) {
        for request in self.waiting.cancelled() {
            self.gateway.borrow_mut().cancel(request);
        }
        let outputs = self.gateway.borrow_mut().outputs();
        for output in outputs {
            match output {
                Output::Send(replica, frame) => self.send(&replica, &frame),
                Output::Answer(request, answer) => self.waiting.answer(request, answer),
                Output::ProvePath(replica, question) => {
                    self.keep(replica, question);
                    self.asked.notify_one();
                }
            }
        }
        self.metrics.waiting.set(gauge(self.waiting.len()));
        if self.gateway.borrow().next_wake() < self.armed.get() {
            self.earlier.notify_one();
        }
    }

    /// Each answer costs a batch to each replica, so one of several open questions is enough.
    fn keep(&self, replica: ReplicaName, question: Question) {
        let mut questions = self.questions.borrow_mut();
        let last = questions.entry(replica).or_insert(question);
        if question > *last {
            *last = question;
        }
    }

    fn send(&self, replica: &ReplicaName, frame: &Up) {
        if let Up::Batch { ids, .. } = frame
            && !ids.is_empty()
        {
            // A batch has some thousand instances at most.
            self.metrics.batch.observe(u32::try_from(ids.len()).map_or(f64::MAX, f64::from));
        }
        let streams = self.streams.borrow();
        let Some(stream) = streams.get(replica) else { return };
        let limit = self.limits.frame_bytes;
        if let Err(error) = stream.outbox.put(|buffer| codec::put_up(frame, limit, buffer)) {
            tracing::warn!(%replica, %error, "cut off a replica");
            let (number, outbox) = (stream.number, stream.outbox.clone());
            drop(streams);
            outbox.close();
            self.forget(replica, number, &error);
        }
    }

    /// The end of a stream that is found while outputs are carried out. It makes no further outputs.
    fn forget(&self, replica: &ReplicaName, number: StreamNumber, why: &Undeliverable) {
        if self.is_current(replica, number) {
            self.streams.borrow_mut().remove(replica);
            self.gateway.borrow_mut().disconnected(replica);
            self.metrics.stream_ended(match why {
                Undeliverable::Full { .. } => "full",
                Undeliverable::TooLong(_) => "too_long",
            });
            self.note_streams();
        }
    }
}

fn gauge(count: usize) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn hub() -> Hub {
        warming_up_for(Duration::ZERO)
    }

    fn warming_up_for(warm_up: Duration) -> Hub {
        let me = Incarnation { pod: "pod".into(), epoch: 1 };
        let limits = StreamLimits { warm_up, ..StreamLimits::default() };
        Hub::new(me, Duration::from_secs(5), limits, Clock::start(), Rc::default())
    }

    fn connect(hub: &Hub, replica: &str) -> StreamNumber {
        let (number, _) = hub.connected(&replica.into());
        assert!(hub.receive(&replica.into(), number, Down::Hello { have: None }));
        number
    }

    fn ask(hub: &Hub, replica: &str, number: StreamNumber, question: u64) {
        let frame = Down::Ask { question: Question(question), term: None };
        assert!(hub.receive(&replica.into(), number, frame));
    }

    /// What is open now. It is not open any more then.
    fn open(hub: &Hub) -> Vec<(String, u64)> {
        let questions = hub.questions().now_or_never().unwrap_or_default();
        questions.into_iter().map(|(replica, question)| (replica.to_string(), question.0)).collect()
    }

    #[test]
    fn of_several_open_questions_of_a_replica_the_last_one_is_answered() {
        let hub = hub();
        let (first, second) = (connect(&hub, "replica-0"), connect(&hub, "replica-1"));
        for question in [7, 8, 9] {
            ask(&hub, "replica-0", first, question);
        }
        ask(&hub, "replica-1", second, 3);
        assert_eq!(open(&hub), [("replica-0".to_owned(), 9), ("replica-1".to_owned(), 3)]);
        assert!(open(&hub).is_empty(), "none is open any more");
    }

    #[test]
    fn a_question_of_a_stream_that_was_replaced_hides_none_of_its_successor() {
        let hub = hub();
        let before = connect(&hub, "replica-0");
        ask(&hub, "replica-0", before, 100);
        let now = connect(&hub, "replica-0");
        assert!(open(&hub).is_empty());
        ask(&hub, "replica-0", now, 1);
        assert_eq!(open(&hub), [("replica-0".to_owned(), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_question_is_open_until_the_service_leads_to_the_gateway() {
        let hub = warming_up_for(Duration::from_secs(10));
        let number = connect(&hub, "a");
        ask(&hub, "a", number, 1);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(open(&hub), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(open(&hub), [("a".to_owned(), 1)]);

        // A short break does not make it unready, and a long one does.
        hub.disconnected(&"a".into(), number, "closed");
        let number = connect(&hub, "a");
        ask(&hub, "a", number, 2);
        assert_eq!(open(&hub), [("a".to_owned(), 2)]);
        hub.disconnected(&"a".into(), number, "closed");
        tokio::time::advance(UNREADY_AFTER).await;
        let number = connect(&hub, "a");
        ask(&hub, "a", number, 3);
        assert_eq!(open(&hub), []);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(open(&hub), [("a".to_owned(), 3)]);
    }
}
