//! Beats that go together.
//!
//! A batch goes at once when none is under way; what comes meanwhile goes with the next one. So an instance that beats
//! alone waits for nothing, and a thousand of them need a few requests.
//!
//! A gateway answers a batch when each beat has its answer, and 2 s later at the latest. So a beat that it cannot answer,
//! such as one for a Lease that the operator has not seen yet, makes the others wait. There are two lanes for this reason:
//! one for instances whose last beat was accepted, and one for all others.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::beats::{BEATS_MAX, BeatLease};
use futures::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::endpoints::{Deadlines, Outcome};

/// Sends beats until the deadlines. Returns one outcome for each.
pub(crate) type Carry =
    Arc<dyn Fn(Vec<BeatLease>, Deadlines) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync>;

/// A beat that waits for its batch.
pub(super) struct Waiting {
    pub(super) lease: BeatLease,
    /// How long the instance waits for the answer.
    pub(super) limit: Duration,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// Sends what comes in, until all senders are gone.
pub(super) async fn run(carry: Carry, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    // The batches without an answer. They are dropped with the lane.
    let mut batches = JoinSet::new();
    let mut waiting = Vec::with_capacity(BEATS_MAX);
    while queue.recv_many(&mut waiting, BEATS_MAX).await > 0 {
        while batches.try_join_next().is_some() {}
        // Those that have given up are not sent.
        waiting.retain(|one: &Waiting| !one.answer.is_closed());
        let limits = || waiting.iter().map(|one| one.limit);
        let (Some(least), Some(most)) = (limits().min(), limits().max()) else { continue };
        let batch = std::mem::take(&mut waiting);
        let (done, answered) = oneshot::channel();
        let now = Instant::now();
        let deadlines = Deadlines { first: now + least, last: now + most };
        batches.spawn(send(Arc::clone(&carry), batch, deadlines, done));
        // A batch without an answer must not hold up an instance for longer than it would wait itself.
        let _ = timeout(least, answered).await;
    }
}

async fn send(carry: Carry, batch: Vec<Waiting>, deadlines: Deadlines, done: oneshot::Sender<()>) {
    let leases = batch.iter().map(|one| one.lease.clone()).collect();
    for (one, outcome) in batch.into_iter().zip(carry(leases, deadlines).await) {
        // The instance may have given up.
        let _ = one.answer.send(outcome);
    }
    let _ = done.send(());
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use tokio::time::sleep;

    use super::*;
    use crate::gateway::endpoints::CarriedBeat;

    const SECOND: Duration = Duration::from_secs(1);

    /// The sizes of the batches, each with its moment after the beginning.
    type Sent = Arc<Mutex<Vec<(Duration, usize)>>>;

    fn carried() -> Outcome {
        Ok(CarriedBeat { ttl: 3 * SECOND, interval: SECOND })
    }

    /// A lane to a gateway that answers each batch after this time.
    fn lane(takes: impl Fn(usize) -> Duration + Send + Sync + 'static) -> (Queue, Sent) {
        let (sent, begun) = (Sent::default(), Instant::now());
        let batches = Arc::clone(&sent);
        let carry: Carry = Arc::new(move |leases, _| {
            let mut batches = batches.lock().expect("no panic");
            let takes = takes(batches.len());
            batches.push((begun.elapsed(), leases.len()));
            async move {
                sleep(takes).await;
                vec![carried(); leases.len()]
            }
            .boxed()
        });
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(run(carry, waiting));
        (queue, sent)
    }

    type Queue = mpsc::UnboundedSender<Waiting>;

    async fn beat(queue: &Queue, limit: Duration) -> Option<Outcome> {
        let (answer, answered) = oneshot::channel();
        let lease = BeatLease { namespace: "shop".to_owned(), name: "greeter.vm-1".to_owned() };
        assert!(queue.send(Waiting { lease, limit, answer }).is_ok(), "the lane runs");
        timeout(limit, answered).await.ok()?.ok()
    }

    async fn beats(queue: &Queue, count: usize, limit: Duration) -> Vec<Option<Outcome>> {
        futures::future::join_all((0..count).map(|_| beat(queue, limit))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_goes_at_once_and_those_that_come_meanwhile_go_together() {
        let (queue, sent) = lane(|_| SECOND / 10);
        let others = async {
            sleep(SECOND / 100).await;
            beats(&queue, 20, SECOND).await
        };
        let (first, others) = tokio::join!(beat(&queue, SECOND), others);
        assert_eq!(first, Some(carried()));
        assert!(others.iter().all(Option::is_some));
        assert_eq!(*sent.lock().unwrap(), [(Duration::ZERO, 1), (SECOND / 10, 20)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_batch_is_larger_than_a_gateway_takes() {
        let (queue, sent) = lane(|_| SECOND / 10);
        let answers = beats(&queue, 2500, SECOND).await;
        assert!(answers.iter().all(Option::is_some));
        let sizes: Vec<usize> = sent.lock().unwrap().iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_without_an_answer_delays_the_next_one_by_the_limit_of_its_most_urgent_beat() {
        let (queue, sent) = lane(|n| if n == 0 { 100 * SECOND } else { Duration::ZERO });
        let hanging = async { tokio::join!(beat(&queue, SECOND), beat(&queue, 9 * SECOND)) };
        let next = async {
            sleep(SECOND / 100).await;
            beat(&queue, 5 * SECOND).await
        };
        let (hanging, next) = tokio::join!(hanging, next);
        assert_eq!((hanging, next), ((None, None), Some(carried())));
        assert_eq!(*sent.lock().unwrap(), [(Duration::ZERO, 2), (SECOND, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_that_was_given_up_is_not_sent() {
        let (queue, sent) = lane(|n| if n == 0 { SECOND } else { Duration::ZERO });
        let given_up = async {
            sleep(SECOND / 100).await;
            beats(&queue, 3, SECOND / 100).await
        };
        tokio::join!(beat(&queue, 2 * SECOND), given_up);
        assert_eq!(beat(&queue, SECOND).await, Some(carried()));
        let sizes: Vec<usize> = sent.lock().unwrap().iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes, [1, 1]);
    }
}
