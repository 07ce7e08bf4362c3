//! The replica's end of the streams: one to each gateway.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use beatkeeper_core::carriers::{
    frames::{Down, Up},
    set::PodUid,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

pub use crate::streams::dialer::DialSettings;
use crate::streams::{
    dialer::{Dialer, StreamId, Telling, Told},
    ended::Ended,
};

/// The most events that wait for the replica. Gateways wait meanwhile, and cut off a replica that is too slow.
const EVENTS_WAITING: usize = 1024;

/// What happens on the stream of a gateway. Between [`Event::Connected`] and [`Event::Disconnected`] come the frames of one
/// stream, in their order.
#[derive(Debug)]
pub enum Event {
    /// A stream is open. What [`Streams::send`] gets from now on is sent on it.
    Connected,
    /// A frame.
    Frame(Up),
    /// The stream has ended.
    Disconnected(Ended),
}

struct Dialled {
    address: SocketAddr,
    task: AbortHandle,
}

/// The streams of a replica.
pub struct Streams {
    settings: Arc<DialSettings>,
    dialled: BTreeMap<PodUid, Dialled>,
    tasks: JoinSet<()>,
    open: BTreeMap<PodUid, (StreamId, mpsc::Sender<Down>)>,
    told: mpsc::Receiver<Telling>,
    tell: mpsc::Sender<Telling>,
    /// What happens because of the replica.
    own: VecDeque<(PodUid, Event)>,
}

impl Streams {
    /// No gateway is known yet. Has to be called in a runtime.
    pub fn new(settings: DialSettings) -> Self {
        let (tell, told) = mpsc::channel(EVENTS_WAITING);
        Self {
            settings: Arc::new(settings),
            dialled: BTreeMap::new(),
            tasks: JoinSet::new(),
            open: BTreeMap::new(),
            told,
            tell,
            own: VecDeque::new(),
        }
    }

    /// Dials these gateways, and no other ones: the uids of their Pods, and their addresses.
    pub fn dial(&mut self, gateways: &BTreeMap<PodUid, SocketAddr>) {
        let gone: Vec<_> = self
            .dialled
            .iter()
            .filter(|(pod, dialled)| gateways.get(*pod) != Some(&dialled.address))
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in gone {
            if let Some(dialled) = self.dialled.remove(&pod) {
                dialled.task.abort();
            }
            self.close(&pod);
        }
        for (pod, address) in gateways {
            if self.dialled.contains_key(pod) {
                continue;
            }
            let dialer = Dialer {
                settings: self.settings.clone(),
                gateway: pod.clone(),
                address: *address,
                tell: self.tell.clone(),
            };
            let task = self.tasks.spawn(dialer.run());
            self.dialled.insert(pod.clone(), Dialled { address: *address, task });
        }
    }

    /// Sends a frame on the open stream to a gateway, if there is one. A gateway that does not read loses its stream.
    pub fn send(&mut self, gateway: &PodUid, frame: Down) {
        let Some((_, sender)) = self.open.get(gateway) else { return };
        if sender.try_send(frame).is_err() {
            self.close(gateway);
        }
    }

    /// Closes the stream to a gateway. It is dialled again.
    pub fn close(&mut self, gateway: &PodUid) {
        if self.open.remove(gateway).is_some() {
            self.own.push_back((gateway.clone(), Event::Disconnected(Ended::ClosedHere)));
        }
    }

    /// The next event. What a stream tells after its end, or after a later one has begun, is no event.
    pub async fn next(&mut self) -> (PodUid, Event) {
        loop {
            if let Some(event) = self.own.pop_front() {
                return event;
            }
            while self.tasks.try_join_next().is_some() {}
            // This end of the channel is kept in `tell`, so it is never closed.
            let Some((gateway, stream, told)) = self.told.recv().await else {
                return std::future::pending().await;
            };
            if let Some(event) = self.heard(&gateway, stream, told) {
                return (gateway, event);
            }
        }
    }

    fn heard(&mut self, gateway: &PodUid, stream: StreamId, told: Told) -> Option<Event> {
        let is_open = self.open.get(gateway).is_some_and(|(open, _)| *open == stream);
        match told {
            Told::Open(sender) => {
                // A dialer that was replaced may have told this before.
                if sender.is_closed() || !self.dialled.contains_key(gateway) {
                    return None;
                }
                let before = self.open.insert(gateway.clone(), (stream, sender));
                if before.is_some() {
                    self.own.push_back((gateway.clone(), Event::Connected));
                    return Some(Event::Disconnected(Ended::ClosedHere));
                }
                Some(Event::Connected)
            }
            Told::Frame(frame) => is_open.then_some(Event::Frame(frame)),
            Told::Ended(ended) => {
                if is_open {
                    self.open.remove(gateway);
                    return Some(Event::Disconnected(ended));
                }
                None
            }
        }
    }
}
