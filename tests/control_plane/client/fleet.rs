//! Many instances in the test process, each with its own client and connection, and the record of
//! their events.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use beatkeeper_client::{Builder, Running, Service, Stats, event::Event};
use futures::{StreamExt, stream};
use kube::Config;

use super::address;
use crate::support::{Shop, chaos::Chronicle, eventually};

/// The number of instances that register at the same time. Each needs a TLS handshake, and the
/// machine may be small.
const SIDE_BY_SIDE: usize = 50;

/// The times at which one instance sent its accepted beats, and all its other events.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<(Vec<Instant>, Vec<Event>)>>);

impl Diary {
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

/// One instance of `greeter`, with a diary.
pub async fn start(shop: &Shop, n: usize, config: Config) -> (Running, Diary) {
    start_with(shop, n, config, |service| service).await
}

/// Like [`start`], with a changed service.
pub async fn start_with(
    shop: &Shop,
    n: usize,
    config: Config,
    change: impl FnOnce(Builder) -> Builder,
) -> (Running, Diary) {
    let diary = Diary::default();
    let note = diary.clone();
    let service = Service::builder("greeter")
        .namespace(&shop.namespace)
        .pod("")
        .instance(format!("vm-{n}"))
        .address(address(n).into())
        .config(config)
        .handle_signal(false)
        .report(Arc::new(move |event| note.note(event)));
    (change(service).build().unwrap().start().await.unwrap(), diary)
}

pub struct Fleet {
    pub chronicle: Chronicle,
    members: Vec<(Running, Diary)>,
}

impl Fleet {
    /// Starts `count` instances, and waits until all are published.
    pub async fn start(shop: &Shop, count: usize) -> Self {
        let chronicle = Chronicle::begin(shop).await;
        let config = shop.plane.admin_config("fleet-test").unwrap();
        let members: Vec<_> = stream::iter(0..count)
            .map(|n| start(shop, n, config.clone()))
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let fleet = Self { chronicle, members };
        fleet.is_published().await;
        fleet
    }

    pub async fn is_published(&self) {
        eventually("the whole fleet is published", async || {
            (self.chronicle.published().len() == self.members.len()).then_some(())
        })
        .await;
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn diaries(&self) -> impl Iterator<Item = &Diary> {
        self.members.iter().map(|(_, diary)| diary)
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
        super::nobody_has_left(&self.chronicle, self.len());
    }
}
