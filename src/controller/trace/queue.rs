//! Decides which reconciliations become traces, and keeps those that are to be sent.

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use super::{recording::Trace, spans};
use crate::controller::{clock::Clock, metrics::process::Metrics};
use beatkeeper_core::vocabulary::key::Key;

/// This many traces wait at most. A trace has about twenty spans, and a hundred and thirty at most.
const WAITING: usize = 64;

/// Begins and ends the traces of this process. Without a collector, nothing is noted.
#[derive(Clone)]
pub(crate) struct Traces(Option<Sender>);

#[derive(Clone)]
struct Sender {
    clock: Clock,
    metrics: Arc<Metrics>,
    waiting: mpsc::Sender<Vec<SpanData>>,
}

/// The traces that are to be sent.
pub(super) type Waiting = mpsc::Receiver<Vec<SpanData>>;

impl Traces {
    /// No traces.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Traces, and the queue that they are put in.
    pub(super) fn on(clock: Clock, metrics: Arc<Metrics>) -> (Self, Waiting) {
        let (waiting, receiver) = mpsc::channel(WAITING);
        (Self(Some(Sender { clock, metrics, waiting })), receiver)
    }

    /// Begins to note a reconciliation.
    pub(crate) fn begin(&self) -> Trace {
        self.0.as_ref().map_or_else(Trace::default, |sender| Trace::begin(sender.clock))
    }

    /// Ends a reconciliation: forgets it, unless it pruned, held or failed. Never waits: if the queue is full, the trace
    /// is dropped.
    pub(crate) fn end(&self, trace: &Trace, registration: &Key) {
        let Some(sender) = &self.0 else { return };
        let spans = trace.look(|recording| {
            let clocks = sender.clock.clocks();
            recording.is_of_interest.then(|| spans::of(recording, registration, clocks))
        });
        if let Some(Err(unsent)) = spans.flatten().map(|spans| sender.waiting.try_send(spans)) {
            sender.metrics.spans_dropped(unsent.into_inner().len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::states::Pruning;
    use opentelemetry::{KeyValue, Value, trace::Status};

    fn traces() -> (Traces, Waiting, Arc<Metrics>) {
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new(clock, false));
        let (traces, waiting) = Traces::on(clock, metrics.clone());
        (traces, waiting, metrics)
    }

    fn key() -> Key {
        Key::new("shop", "greeter")
    }

    /// Notes the prune of an instance.
    fn prune(trace: &Trace, instance: &str) {
        let (deadline, read, proof) = Default::default();
        let lease = Arc::from(format!("greeter.{instance}"));
        let instance = || instance.to_owned();
        trace.pruned(&lease, instance, &Pruning { deadline, read, proof }, deadline);
    }

    fn value<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
        span.attributes.iter().find(|it| it.key.as_str() == name).map(|it| &it.value)
    }

    #[test]
    fn a_reconciliation_is_sent_only_if_it_pruned_held_more_or_is_the_first_that_failed() {
        let (traces, mut waiting, _) = traces();
        let mut is_sent = |what: &dyn Fn(&Trace)| {
            let trace = traces.begin();
            drop(trace.step("inputs"));
            what(&trace);
            traces.end(&trace, &key());
            waiting.try_recv().is_ok()
        };
        assert!(!is_sent(&|_| {}));
        assert!(is_sent(&|trace| prune(trace, "vm-1")));
        assert!(is_sent(&|trace| trace.held(2, true)));
        assert!(!is_sent(&|trace| trace.held(2, false)));
        assert!(is_sent(&|trace| trace.failed(&"refused", true)));
        assert!(!is_sent(&|trace| trace.failed(&"refused", false)));
    }

    #[test]
    fn calls_belong_to_the_step_that_runs_and_steps_to_the_reconciliation() {
        let (traces, mut waiting, _) = traces();
        let trace = traces.begin();
        let step = trace.step("verify");
        let mut read =
            trace.read("read Lease", || KeyValue::new("beatkeeper.lease", "greeter.vm-1"));
        read.failed(&"no answer in time");
        drop(read);
        drop(step);
        drop(trace.step("plan"));
        prune(&trace, "vm-1");
        traces.end(&trace, &key());
        let spans = waiting.try_recv().expect("a trace");
        let id = |name: &str| {
            let span = spans.iter().find(|span| span.name == name).expect(name);
            (span.span_context.span_id(), span.parent_span_id)
        };
        let root = id("reconcile").0;
        assert_eq!((id("verify").1, id("plan").1, id("prune").1), (root, root, root));
        assert_eq!(id("read Lease").1, id("verify").0);
        let trace_id = spans[0].span_context.trace_id();
        assert!(spans.iter().all(|span| span.span_context.trace_id() == trace_id));
        let failed: Vec<_> = spans.iter().filter(|span| span.status != Status::Unset).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].status, Status::error("no answer in time"));
    }

    #[test]
    fn of_a_thousand_prunes_and_reads_a_trace_has_some_and_the_numbers() {
        let (traces, mut waiting, _) = traces();
        let trace = traces.begin();
        let step = trace.step("verify");
        for n in 0..1000 {
            drop(trace.read("read Lease", || KeyValue::new("beatkeeper.lease", n)));
        }
        drop(step);
        (0..1000).for_each(|n| prune(&trace, &format!("vm-{n}")));
        traces.end(&trace, &key());
        let spans = waiting.try_recv().expect("a trace");
        let named = |name: &str| spans.iter().filter(|span| span.name == name).count();
        assert_eq!((named("read Lease"), named("prune"), named("verify")), (64, 24, 1));
        assert_eq!(value(&spans[0], "beatkeeper.pruned"), Some(&1000.into()));
        assert_eq!(value(&spans[0], "beatkeeper.calls_left_out"), Some(&936.into()));
    }

    #[test]
    fn a_full_queue_drops_traces_and_counts_their_spans() {
        let (traces, waiting, metrics) = traces();
        for _ in 0..WAITING + 3 {
            let trace = traces.begin();
            prune(&trace, "vm-1");
            traces.end(&trace, &key());
        }
        assert_eq!(waiting.len(), WAITING);
        let dropped = "beatkeeper_trace_spans_dropped_total 6\n";
        assert!(metrics.text().contains(dropped), "{}", metrics.text());
    }

    #[test]
    fn a_prune_counts_from_the_first_write_of_the_last_plan_and_the_root_has_the_longest_lag() {
        let (traces, mut waiting, _) = traces();
        let trace = traces.begin();
        let sent = |trace: &Trace| {
            drop(trace.write("write", || KeyValue::new("beatkeeper.write", "update slice a: −1")));
            let first = trace.look(|recording| recording.first_write()).flatten();
            first.expect("a write was sent")
        };
        drop(trace.step("plan"));
        let conflicting = sent(&trace);
        std::thread::sleep(std::time::Duration::from_millis(1));
        drop(trace.step("plan"));
        let first = sent(&trace);
        assert!(first > conflicting, "a conflict made another plan");
        assert_eq!(sent(&trace), first, "further writes of this plan follow");
        for (name, millis) in [("vm-1", 250), ("vm-2", 1000), ("vm-3", 500)] {
            let (deadline, lease) = (first, Arc::from(name));
            let (read, proof) = Default::default();
            let confirmed = first + std::time::Duration::from_millis(millis);
            let why = Pruning { deadline, read, proof };
            trace.pruned(&lease, || name.to_owned(), &why, confirmed);
        }
        traces.end(&trace, &key());
        let spans = waiting.try_recv().expect("a trace");
        assert_eq!(value(&spans[0], "beatkeeper.prune.lag"), Some(&1.0.into()));
        let of = |name: &'static str| spans.iter().filter(move |span| span.name == name);
        let lags: Vec<_> = of("prune").map(|it| value(it, "beatkeeper.prune.lag")).collect();
        assert_eq!(lags, [Some(&0.25.into()), Some(&1.0.into()), Some(&0.5.into())]);
        let name = "beatkeeper.prune.write_sent_after_deadline";
        assert!(of("prune").all(|prune| value(prune, name) == Some(&0.0.into())), "{spans:?}");
    }

    /// How many nanoseconds of a processor this thread has had. Other programs do not change it.
    fn processor_time() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        text.split(' ').next().and_then(|it| it.parse().ok()).expect("a number")
    }

    /// Notes what a prune of one instance notes. Returns the nanoseconds of a processor that one of many such
    /// reconciliations takes.
    fn nanoseconds(traces: &Traces, is_pruned: bool) -> u64 {
        const TIMES: u64 = 100_000;
        let key = key();
        let before = processor_time();
        for _ in 0..TIMES {
            let trace = traces.begin();
            for step in ["inputs", "decide", "verify", "decide", "plan", "apply", "report"] {
                let under_way = trace.step(step);
                let call =
                    match step {
                        "verify" => Some(trace.read("read Lease", || {
                            KeyValue::new("beatkeeper.lease", "greeter.vm-1")
                        })),
                        "apply" => Some(trace.write("write", || {
                            KeyValue::new("beatkeeper.write", "update slice greeter-x7k2p: −1")
                        })),
                        _ => None,
                    };
                drop((call, under_way));
            }
            if is_pruned {
                prune(&trace, "vm-1");
            }
            traces.end(&trace, &key);
        }
        (processor_time() - before) / TIMES
    }

    #[test]
    #[ignore = "a measurement, of some seconds"]
    fn what_a_trace_costs() {
        let (traces, mut waiting, _) = traces();
        let taken = std::thread::spawn(move || while waiting.blocking_recv().is_some() {});
        let off = nanoseconds(&Traces::off(), true);
        let forgotten = nanoseconds(&traces, false);
        let sent = nanoseconds(&traces, true);
        drop(traces);
        taken.join().expect("the queue is read to its end");
        println!(
            "a reconciliation: {off} ns without tracing, {forgotten} ns if it is forgotten, {sent} ns if it is sent"
        );
        assert!(off < forgotten && forgotten < sent, "{off} {forgotten} {sent}");
    }

    #[test]
    fn without_a_collector_nothing_is_noted() {
        let trace = Traces::off().begin();
        assert!(!trace.is_on() && trace.id().is_none());
    }
}
