//! One schedule: a cluster is drawn from a seed, and faults strike it. Then everything is repaired, and the
//! cluster must reach a steady state.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
};

use beatkeeper_core::{objects::registration::Registration, vocabulary::key::Key};
use serde_json::{Value, json};

mod adoption;
mod finale;
mod overstayed;

use crate::{
    check::Check,
    connection,
    executor::Executor,
    fault::{self, Fault},
    network::Network,
    object::REGISTRATIONS as REGISTRATION_KIND,
    random::Random,
    replica::{Replica, Style},
    rules::Without,
    wire::Ask,
    workload::Workload,
};

pub struct Run {
    pub executor: Rc<Executor>,
    pub network: Rc<Network>,
    pub check: Rc<Check>,
    style: Style,
    pub namespaces: Vec<&'static str>,
    registrations: Vec<Key>,
    places: usize,
    replicas: RefCell<Vec<Option<Replica>>>,
    this: RefCell<std::rc::Weak<Run>>,
    /// True while faults strike. When it is false, actions that were scheduled with `later` are skipped.
    stormy: Cell<bool>,
    /// By registration and address: the healthy time for which a dead instance has been published, in
    /// milliseconds.
    overstayed: RefCell<BTreeMap<(Key, IpAddr), u64>>,
    healthy_for: Cell<u64>,
    /// True if only restarts go wrong.
    restarts: bool,
    calm: u64,
    protected: Cell<bool>,
    story: Story,
    /// Draws whether and when the store goes back; set only in schedules in which it can. This is a separate
    /// generator, so that all other schedules stay as they were.
    rollbacks: Option<Random>,
}

/// The result of a schedule.
#[derive(Debug, Default)]
pub struct Outcome {
    pub violation: Option<String>,
    pub trace: Vec<String>,
    pub millis: u64,
    pub prunes: u64,
    /// How many decisions were made of what has changed.
    pub kept: u64,
    /// How many plans were.
    pub kept_plans: u64,
}

/// The store goes back to an earlier state in one of this many schedules.
const ROLLBACK_IN: u64 = 8;

/// How often the observer checks the whole state, in milliseconds.
const TICK: u64 = 100;

/// What happens in a schedule.
#[derive(Debug, Clone, Copy)]
pub enum Story {
    /// Faults that the seed determines.
    Faults,
    /// An adoption. At this write of the operator, the store goes back to the state before the adoption.
    AdoptionLost { at_write: u64 },
}

/// Plays the schedule of a seed.
pub fn play(seed: u64, without: Without, traced: bool) -> Outcome {
    play_story(seed, Story::Faults, without, traced)
}

/// Plays a story. The seed determines what the story leaves open.
pub fn play_story(seed: u64, story: Story, without: Without, traced: bool) -> Outcome {
    // Each schedule has a thread of its own, so that all of them begin in the same state.
    let schedule = move || {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(play_here(seed, story, without, traced))
    };
    std::thread::spawn(schedule).join().expect("no panic")
}

async fn play_here(seed: u64, story: Story, without: Without, traced: bool) -> Outcome {
    let run = Run::draw(seed, story, without);
    connection::install(Some(run.network.clone()));
    if traced {
        *run.check.trace.borrow_mut() = Some(Vec::new());
    }
    run.play().await;
    let outcome = Outcome {
        violation: run.check.violation.borrow_mut().take(),
        trace: run.check.trace.borrow_mut().take().unwrap_or_default(),
        millis: run.executor.now(),
        prunes: run.check.prunes.get(),
        kept: run.check.kept.get(),
        kept_plans: run.check.kept_plans.get(),
    };
    run.executor.end();
    run.network.end();
    run.check.end();
    connection::install(None);
    outcome
}

/// Addresses that were written by hand before the operator came. No workload has them.
const LEGACY: [[u8; 4]; 2] = [[192, 0, 2, 201], [192, 0, 2, 202]];

const REGISTRATIONS: [(&str, &str); 3] = [("shop", "cart"), ("yard", "crane"), ("shop", "till")];

impl Run {
    fn draw(seed: u64, story: Story, without: Without) -> Rc<Self> {
        let executor = Executor::new(seed);
        let random = &executor.random;
        let check = Rc::new(Check::default());
        let places = random.pick(&[1, 1, 2, 2, 3]);
        let elected = random.percent(50) || places > 1;
        let style = Style {
            publish_endpoints: random.percent(50),
            max_endpoints_per_slice: random.pick(&[2, 3, 5, 100]),
            elected,
        };
        let page = random.pick(&[2, 5, 1000, 1000]);
        let network = Network::new(executor.clone(), check.clone(), page, without);
        let count = random.pick(&[1, 1, 1, 2, 2, 3]);
        let registrations: Vec<Key> = REGISTRATIONS[..count]
            .iter()
            .map(|(namespace, name)| Key::new(*namespace, *name))
            .collect();
        let mut namespaces: Vec<&'static str> =
            REGISTRATIONS[..count].iter().map(|(namespace, _)| *namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let run = Rc::new(Self {
            executor: executor.clone(),
            network,
            check,
            style,
            namespaces,
            registrations,
            places,
            replicas: RefCell::new(vec![None; places]),
            this: RefCell::default(),
            stormy: Cell::new(true),
            overstayed: RefCell::default(),
            healthy_for: Cell::new(0),
            restarts: places == 1 && random.percent(8),
            calm: 6000,
            protected: Cell::new(false),
            story,
            rollbacks: (seed % ROLLBACK_IN == 5).then(|| Random::new(!seed)),
        });
        *run.this.borrow_mut() = Rc::downgrade(&run);
        run
    }

    fn rc(&self) -> Rc<Self> {
        self.this.borrow().upgrade().expect("it runs")
    }

    fn random(&self) -> &Random {
        &self.executor.random
    }

    /// Schedules an action, which is skipped if no faults strike any more at that moment.
    pub fn later(&self, after: u64, action: impl FnOnce(&Rc<Self>) + 'static) {
        let this = self.this.borrow().clone();
        self.executor.after(after, move || {
            if let Some(this) = this.upgrade().filter(|this| this.stormy.get()) {
                action(&this);
            }
        });
    }

    pub fn place(&self, n: usize) -> usize {
        n % self.places
    }

    pub fn namespace(&self, n: usize) -> &'static str {
        self.namespaces[n % self.namespaces.len()]
    }

    pub fn registration(&self, n: usize) -> Key {
        self.registrations[n % self.registrations.len()].clone()
    }

    pub fn workload(&self, n: usize) -> Rc<Workload> {
        let all = self.check.workloads();
        all[n % all.len()].clone()
    }

    pub fn replica(&self, place: usize) -> Option<Replica> {
        self.replicas.borrow()[place].clone()
    }

    pub fn crash(&self, place: usize) {
        if let Some(replica) = self.replicas.borrow_mut()[place].take() {
            self.check.tell(|| format!("replica {place} crashes"));
            self.executor.crash(replica.process);
            self.network.watches.forget(replica.process);
            self.check.ended(replica.process);
        }
    }

    pub fn start_replica(&self, place: usize) {
        if self.replicas.borrow()[place].is_none() {
            let replica = Replica::start(&self.network, place, self.style);
            self.replicas.borrow_mut()[place] = Some(replica);
        }
    }

    pub fn restart_replicas(&self) {
        for place in 0..self.places {
            self.crash(place);
            self.start_replica(place);
        }
    }

    /// A person edits the spec of a registration.
    pub fn edit(&self, n: usize, spec: Value) {
        if spec["protection"]["minReady"].as_u64().is_some_and(|ready| ready > 0) {
            self.protected.set(true);
        }
        let patch = json!({ "spec": spec });
        self.network.patch(REGISTRATION_KIND, &self.registration(n), patch);
    }

    fn spec(&self, key: &Key) -> Registration {
        let stored = self.network.server.store.borrow().get(REGISTRATION_KIND, key).cloned();
        let stored = stored.expect("registrations stay");
        Registration::validate(stored.object().registration().expect("it is a registration"))
    }

    /// Makes the registrations, workloads and controllers that were drawn.
    fn furnish(&self) {
        let random = self.random();
        for key in &self.registrations {
            let (ttl, interval) = fault::pace(random);
            let create = Ask::Create(registration(key, ttl, interval));
            let _ = self.network.act(create, REGISTRATION_KIND, key);
            if random.percent(8) || matches!(self.story, Story::AdoptionLost { .. }) {
                self.check.legacy.borrow_mut().extend(LEGACY.map(IpAddr::from));
                let addresses = LEGACY.map(|address| IpAddr::from(address).to_string());
                let as_endpoints = random.percent(50);
                fault::create_legacy(self, key, &addresses, as_endpoints);
            }
        }
        if random.percent(20) {
            Fault::min_ready(random.index(3), 2).strike(&self.rc());
        }
        let fewest = random.pick(&[
            (1, 3),
            (1, 3),
            (1, 3),
            (1, 3),
            (1, 3),
            (1, 4),
            (1, 4),
            (2, 6),
            (2, 6),
            (2, 8),
            (12, 15),
            (14, 30),
        ]);
        let count = usize::try_from(random.between(fewest.0, fewest.1)).expect("few");
        let pods = random.pick(&[0, 0, 30, 100]);
        for number in 0..count {
            let (namespace, name) = REGISTRATIONS[random.index(self.registrations.len())];
            let skew = if random.percent(30) { random.between(0, 172_800_000) } else { 86_400_000 };
            let skew = i64::try_from(skew).expect("small") - 86_400_000;
            let (in_pod, impostor) = (random.percent(pods), random.percent(2));
            let workload = Workload::new(
                &self.network,
                number,
                namespace,
                name,
                in_pod && !impostor,
                impostor,
                skew,
            );
            if random.percent(92) {
                workload.start();
            }
            self.check.join(workload);
        }
        for place in 0..self.places {
            if random.percent(30) {
                Fault::operator_clock(place, 40_000_000).strike(&self.rc());
            }
            let this = self.rc();
            self.executor.after(random.between(0, 300), move || this.start_replica(place));
        }
    }

    async fn play(&self) {
        self.furnish();
        let ttl = self.check.longest_ttl();
        if let Story::AdoptionLost { at_write } = self.story {
            return self.lose_adoption(at_write, ttl).await;
        }
        let random = self.random();
        self.advance(random.between(ttl / 2, ttl * 3 / 2)).await;
        if self.restarts {
            return self.restart_again_and_again(ttl).await;
        }
        let horizon = ttl * random.between(2, 9) / 2;
        for _ in 0..random.between(1, 9) {
            let fault = Fault::draw(random, ttl);
            self.later(random.between(0, horizon), move |run| fault.strike(run));
        }
        if let Some(random) = &self.rollbacks {
            for _ in 0..random.between(1, 2) {
                let rollback = Fault::rollback(random, ttl, horizon);
                self.later(random.between(0, horizon / 2), move |run| rollback.strike(run));
            }
        }
        self.advance(horizon).await;
        self.calm_down().await;
    }

    /// An instance dies, and each process ends before it could have given the instance a whole ttl (L5).
    async fn restart_again_and_again(&self, ttl: u64) {
        let random = self.random();
        Fault::death(random).strike(&self.rc());
        let (every, times) = (ttl * random.between(6, 9) / 10, 12);
        Fault::crash_loop(every, times).strike(&self.rc());
        self.advance(every * times).await;
        self.calm_down().await;
    }

    /// Lets time pass, and stops early if something is violated.
    async fn advance(&self, millis: u64) {
        let end = self.executor.now() + millis;
        while self.executor.now() < end && self.check.violation.borrow().is_none() {
            let tick = (self.executor.now() + TICK).min(end);
            while self.executor.step(tick).await {
                self.check.look(&self.network, &self.replicas.borrow());
                if self.check.violation.borrow().is_some() {
                    return;
                }
            }
            self.look_for_the_dead();
        }
    }
}

fn registration(key: &Key, ttl: u64, interval: u64) -> Value {
    json!({
        "apiVersion": "beatkeeper.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": { "name": key.name },
        "spec": {
            "ttl": format!("{ttl}ms"),
            "interval": format!("{interval}ms"),
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
            "podSelector": {},
        },
    })
}
