//! Many instances that start, beat, leave and die, with a record of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{
    conditions::WriteLog,
    fixture::Scale,
    record::{Beat, End, InstanceRecord},
};
use crate::support::{Beats, TestNamespace};

/// The instances of the registrations of a namespace. Each instance has its own address, which
/// identifies it here. No address is used twice.
pub struct Instances {
    leases: Api<Lease>,
    /// The makers of Leases, one for each registration.
    registrations: Vec<(String, Beats)>,
    interval: Duration,
    slack: Duration,
    write_log: WriteLog,
    started: AtomicU32,
    members: Mutex<BTreeMap<String, Member>>,
}

struct Member {
    record: Arc<Mutex<InstanceRecord>>,
    stop: Arc<AtomicBool>,
}

impl Instances {
    pub fn new(
        ns: &TestNamespace,
        registrations: &[String],
        scale: Scale,
        write_log: WriteLog,
    ) -> Self {
        let registrations =
            registrations.iter().map(|name| (name.clone(), ns.beats(name))).collect();
        Self {
            leases: ns.api(),
            registrations,
            interval: scale.interval,
            slack: scale.ttl - scale.interval,
            write_log,
            started: AtomicU32::new(0),
            members: Mutex::default(),
        }
    }

    /// Starts a process. It registers, and then beats every interval from a random phase on.
    pub fn start(&self, rng: &mut StdRng) {
        let n = self.started.fetch_add(1, Ordering::Relaxed);
        let (registration, leases) = &self.registrations[n as usize % self.registrations.len()];
        let (instance, address) = (format!("vm-{n}"), address(n));
        let record = Arc::new(Mutex::new(InstanceRecord::new(registration, &instance)));
        let stop = Arc::new(AtomicBool::new(false));
        let process = Process {
            leases: self.leases.clone(),
            lease: leases.outside(&instance, &address),
            interval: self.interval,
            slack: self.slack,
            write_log: self.write_log.clone(),
            record: record.clone(),
            stop: stop.clone(),
        };
        let phase = self.interval.mul_f64(rng.random_range(0.0..1.0));
        tokio::spawn(process.run(phase));
        self.members.lock().unwrap().insert(address, Member { record, stop });
    }

    /// Chooses an instance that is alive and has beaten. Each such instance has the same
    /// probability.
    pub fn any(&self, rng: &mut StdRng) -> Option<String> {
        let members = self.members.lock().unwrap();
        let settled = members.iter().filter(|(_, member)| {
            let record = member.record.lock().unwrap();
            record.alive() && !record.beats.is_empty()
        });
        let settled: Vec<&String> = settled.map(|(address, _)| address).collect();
        settled.choose(rng).map(|&address| address.clone())
    }

    /// Stops the beats of a process without deregistering it, as SIGKILL does.
    pub fn kill(&self, address: &str) {
        let members = self.members.lock().unwrap();
        let member = &members[address];
        member.record.lock().unwrap().end = End::Silent(Instant::now());
        member.stop.store(true, Ordering::Release);
    }

    /// Ends a process in order: it stops beating and its Lease is deleted.
    pub fn leave(&self, address: &str) {
        let members = self.members.lock().unwrap();
        let Member { record, stop } = &members[address];
        stop.store(true, Ordering::Release);
        let asked = Instant::now();
        let (record, leases) = (record.clone(), self.leases.clone());
        let name = {
            let mut record = record.lock().unwrap();
            record.end = End::Left { asked, answered: None };
            heartbeat::lease_name(&record.registration, &record.instance)
        };
        tokio::spawn(async move {
            loop {
                match leases.delete(&name, &DeleteParams::default()).await {
                    Err(kube::Error::Api(refused)) if refused.code == 404 => break,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Ok(_) => break,
                }
            }
            record.lock().unwrap().end = End::Left { asked, answered: Some(Instant::now()) };
        });
    }

    /// The addresses of the instances that are alive.
    pub fn living(&self) -> Vec<String> {
        self.records().into_iter().filter(|(_, record)| record.alive()).map(|(at, _)| at).collect()
    }

    /// A copy of all records, by address.
    pub fn records(&self) -> BTreeMap<String, InstanceRecord> {
        let members = self.members.lock().unwrap();
        let copy = |(address, member): (&String, &Member)| {
            (address.clone(), member.record.lock().unwrap().clone())
        };
        members.iter().map(copy).collect()
    }

    /// Ends one instance and starts another at each tick of `pace`, for `time`. The instance is
    /// killed or deregisters, each with probability 1/2.
    pub async fn churn(&self, rng: &mut StdRng, pace: Duration, time: Duration) {
        let mut ticks = tokio::time::interval(pace);
        let start = Instant::now();
        while start.elapsed() < time {
            ticks.tick().await;
            if let Some(victim) = self.any(rng) {
                if rng.random_bool(0.5) {
                    self.kill(&victim)
                } else {
                    self.leave(&victim)
                }
                self.start(rng);
            }
        }
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        let members = self.members.lock().unwrap();
        members.values().for_each(|member| member.stop.store(true, Ordering::Release));
    }
}

/// The n-th address in 198.18.0.0/15, which is reserved for tests.
fn address(n: u32) -> String {
    let n = n + 1;
    format!("198.{}.{}.{}", 18 + n / 65_536, n / 256 % 256, n % 256)
}

/// A beating process that follows the contract for clients.
struct Process {
    leases: Api<Lease>,
    lease: Lease,
    interval: Duration,
    /// ttl − interval.
    slack: Duration,
    write_log: WriteLog,
    record: Arc<Mutex<InstanceRecord>>,
    stop: Arc<AtomicBool>,
}

impl Process {
    async fn run(self, phase: Duration) {
        self.until_accepted(Self::register).await;
        tokio::time::sleep(phase).await;
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stop.load(Ordering::Acquire) {
            self.until_accepted(Self::beat).await;
            ticks.tick().await;
        }
    }

    /// Retries with increasing pauses. Each request times out only after half of the slack. With
    /// shorter timeouts, many instances would keep an overloaded API server down. With a timeout of the
    /// whole slack, no slack would be left if an outage that has since ended lost a request.
    async fn until_accepted(&self, request: impl AsyncFn(&Self) -> kube::Result<Lease>) {
        let mut pause = self.interval / 10;
        while !self.stop.load(Ordering::Acquire) {
            let sent = Instant::now();
            let answer = tokio::time::timeout(self.slack / 2, request(self)).await;
            let answered = Instant::now();
            if matches!(answer, Ok(Ok(_))) {
                self.write_log.accepted(sent, answered);
                self.record.lock().unwrap().beats.push(Beat { sent, answered });
                return;
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.5));
            tokio::time::sleep(jittered).await;
            pause = (pause * 2).min(self.slack / 4);
        }
    }

    async fn register(&self) -> kube::Result<Lease> {
        match self.leases.create(&PostParams::default(), &self.lease).await {
            // An earlier attempt, whose answer was lost, has created the Lease.
            Err(kube::Error::Api(refused)) if refused.code == 409 => self.patch().await,
            answer => answer,
        }
    }

    async fn beat(&self) -> kube::Result<Lease> {
        match self.patch().await {
            Err(kube::Error::Api(refused)) if refused.code == 404 => self.register().await,
            answer => answer,
        }
    }

    async fn patch(&self) -> kube::Result<Lease> {
        let name = self.lease.metadata.name.as_deref().unwrap();
        let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
        self.leases.patch(name, &PatchParams::default(), &patch).await
    }
}
