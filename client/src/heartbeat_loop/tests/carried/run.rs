//! A loop that runs, its API server and its gateway.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use beatkeeper_api::Carrier;

use super::super::*;
use crate::{
    event::CarrierEvent,
    failure::Cause,
    gateway::{CarriedBeat, Gateway, Refusal},
};

pub const SECOND: Duration = Duration::from_secs(1);

/// A gateway, and the moments of the beats that it has accepted.
#[derive(Clone)]
pub struct FakeGateway {
    pub code: Arc<AtomicU16>,
    pub pace: Arc<Mutex<CarriedBeat>>,
    pub accepted: Arc<Mutex<Vec<Instant>>>,
    pub asked: Arc<Mutex<usize>>,
}

impl FakeGateway {
    pub fn new() -> Self {
        let pace = CarriedBeat { ttl: 3 * SECOND, interval: SECOND };
        Self {
            code: Arc::new(AtomicU16::new(200)),
            pace: Arc::new(Mutex::new(pace)),
            accepted: Arc::default(),
            asked: Arc::default(),
        }
    }

    pub fn answers(&self, code: u16) {
        self.code.store(code, Relaxed);
    }

    pub fn connect(&self) -> Gateway {
        let this = self.clone();
        Gateway::fake(move |lease| {
            assert_eq!((&*lease.namespace, &*lease.name), ("shop", "greeter.vm-1"));
            *this.asked.lock().expect("no panic") += 1;
            let cause = match this.code.load(Relaxed) {
                200 => {
                    this.accepted.lock().expect("no panic").push(Instant::now());
                    return Ok(*this.pace.lock().expect("no panic"));
                }
                403 => Cause::Refused,
                404 => Cause::Missing,
                _ => Cause::ServerError,
            };
            Err(Refusal { cause, retry_after: None, details: "no".to_owned() })
        })
    }

    pub fn accepted(&self) -> usize {
        self.accepted.lock().expect("no panic").len()
    }

    pub fn asked(&self) -> usize {
        *self.asked.lock().expect("no panic")
    }
}

/// A loop that runs, its API server and its gateway.
pub struct Run {
    pub api: Api,
    pub gateway: FakeGateway,
    pub health: watch::Sender<HealthReport>,
    pub diary: Diary,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Run {
    /// A loop at this API server. `address` is what it claims.
    pub fn at(api: &Api, gateway: &FakeGateway, address: &str, options: BeatOptions) -> Self {
        let (diary, (health, heard)) = (Diary::default(), watch::channel(HealthReport::default()));
        let writes = Arc::clone(&diary);
        let report: Report =
            Arc::new(move |event| writes.lock().expect("no panic").push(event.clone()));
        let connection = Connection { gateway: Some(gateway.connect()), ..api.connection() };
        let address = Location::Outside(vec![address.parse().expect("an IP")]);
        let identity = Identity { home: address, ..identity() };
        let heartbeat_loop = HeartbeatLoop::new(connection, identity, options, heard, report);
        let stop = CancellationToken::new();
        let task = tokio::spawn(heartbeat_loop.run(stop.clone()));
        Self { api: api.clone(), gateway: gateway.clone(), health, diary, stop, task }
    }

    pub fn new(carrier: Carrier) -> Self {
        let api = Api::with(|_| {});
        api.state().spec["carrier"] = json!(carrier);
        Self::at(&api, &FakeGateway::new(), "192.0.2.1", BeatOptions::default())
    }

    /// A loop that a gateway carries.
    pub async fn carried() -> Self {
        let run = Self::new(Carrier::Gateway);
        sleep(5 * SECOND).await;
        assert!(run.gateway.accepted() >= 3, "{:?}", run.diary());
        run
    }

    pub fn diary(&self) -> Vec<Event> {
        self.diary.lock().expect("no panic").clone()
    }

    /// How often the Lease was written.
    pub fn writes(&self) -> u64 {
        self.api.state().version
    }

    pub fn transitions(&self) -> i64 {
        let lease = self.api.state().lease.clone().expect("a Lease");
        lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default()
    }

    pub fn want(&self, carrier: Carrier) {
        self.api.state().spec["carrier"] = json!(carrier);
    }

    /// The ways that the beats have taken, one after the other.
    pub fn changes(&self) -> Vec<Carrier> {
        let changed = |event: Event| match event {
            Event::Carrier(CarrierEvent::Changed(carrier)) => Some(carrier),
            _ => None,
        };
        self.diary().into_iter().filter_map(changed).collect()
    }

    /// Checks that no accepted beat came later than one and a half intervals after the one before.
    pub fn has_no_gap(&self) {
        let sent = |event: &Event| match event {
            Event::Claimed { .. } | Event::Beat { .. } => Some(()),
            _ => None,
        };
        let beats = self.diary().iter().filter_map(sent).count();
        let late = |event: Event| matches!(event, Event::SilentForTtl { .. } | Event::Late { .. });
        assert!(!self.diary().into_iter().any(late), "{:?}", self.diary());
        assert!(beats > 0);
    }

    pub async fn stop(self) -> Vec<Event> {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("deregistered");
        let diary = self.diary.lock().expect("no panic");
        diary.clone()
    }
}
