//! Many instances in the test process, each with its own client and connection, and the record of
//! their events.

use beatkeeper_test_support::SliceObserver;
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use beatkeeper_client::{Builder, Running, Service, Stats, event::Event};
use futures::{StreamExt, stream};
use kube::Config;

use super::address;
use crate::support::{TestNamespace, eventually};

/// The number of instances that register at the same time. Each needs a TLS handshake, and the
/// machine may be small.
const SIDE_BY_SIDE: usize = 50;

/// The times at which one instance sent its accepted beats, and all its other events.
#[derive(Clone, Default)]
pub struct WriteLog(Arc<Mutex<(Vec<Instant>, Vec<Event>)>>);

impl WriteLog {
    pub fn note(&self, event: &Event) {
        let (sent, told) = &mut *self.0.lock().unwrap();
        match event {
            Event::Beat { took, .. } => sent.push(Instant::now() - *took),
            event => told.push(event.clone()),
        }
    }

    /// The times of the accepted beats that were sent after a moment.
    pub fn beats_since(&self, moment: Instant) -> Vec<Instant> {
        let sent = &self.0.lock().unwrap().0;
        sent.iter().copied().filter(|sent| *sent > moment).collect()
    }

    /// The events for which `look` returns a value.
    pub fn told<T>(&self, look: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.0.lock().unwrap().1.iter().filter_map(look).collect()
    }
}

/// One instance of `greeter`, with a write log.
pub async fn start(ns: &TestNamespace, n: usize, config: Config) -> (Running, WriteLog) {
    start_with(ns, n, config, |service| service).await
}

/// Like [`start`], with a changed service.
pub async fn start_with(
    ns: &TestNamespace,
    n: usize,
    config: Config,
    change: impl FnOnce(Builder) -> Builder,
) -> (Running, WriteLog) {
    let write_log = WriteLog::default();
    let note = write_log.clone();
    let service = Service::builder("greeter")
        .namespace(&ns.name)
        .pod("")
        .instance(format!("vm-{n}"))
        .address(address(n).into())
        .config(config)
        .handle_signal(false)
        .report(Arc::new(move |event| note.note(event)));
    (change(service).build().unwrap().start().await.unwrap(), write_log)
}

pub struct Fleet {
    pub observer: SliceObserver,
    members: Vec<(Running, WriteLog)>,
}

impl Fleet {
    /// Starts `count` instances, and waits until all are published.
    pub async fn start(ns: &TestNamespace, count: usize) -> Self {
        let observer = ns.observe_all().await;
        let config = ns.plane.admin_config("fleet-test").unwrap();
        let members: Vec<_> = stream::iter(0..count)
            .map(|n| start(ns, n, config.clone()))
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let fleet = Self { observer, members };
        fleet.is_published().await;
        fleet
    }

    pub async fn is_published(&self) {
        eventually("the whole fleet is published", async || {
            (self.observer.published().len() == self.members.len()).then_some(())
        })
        .await;
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn diaries(&self) -> impl Iterator<Item = &WriteLog> {
        self.members.iter().map(|(_, write_log)| write_log)
    }

    /// The statistics of all instances together.
    pub fn stats(&self) -> Stats {
        self.members.iter().map(|(running, _)| running.stats()).fold(
            Stats::default(),
            |all, one| Stats {
                beats: all.beats + one.beats,
                failed: all.failed + one.failed,
                late: all.late + one.late,
                out: all.out + one.out,
            },
        )
    }

    /// Panics if any instance has left at any moment.
    pub fn was_always_there(&self) {
        super::no_instance_has_left(&self.observer, self.len());
    }
}
