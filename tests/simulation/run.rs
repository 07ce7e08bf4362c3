//! One schedule: a cluster is drawn from a seed, and faults strike it. Then everything is repaired, and the
//! cluster must reach a steady state.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use beatkeeper_api::{PortSpec, ServiceRegistration, ServiceRegistrationSpec};
use beatkeeper_core::{
    objects::registration::Registration,
    plan::build::PlanSettings,
    vocabulary::{address::OutsideRanges, key::Key},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

mod finale;

use crate::{
    api::Call,
    check::Check,
    controller::{Controller, Leadership, Setup},
    executor::Executor,
    fault::{self, Fault},
    network::{Caller, FAIR, Mode, Network},
    object::{Kind, Object},
    random::Random,
    rules::Without,
    workload::Workload,
};

pub struct Run {
    pub executor: Rc<Executor>,
    pub network: Rc<Network>,
    pub check: Rc<Check>,
    pub setup: Rc<Setup>,
    pub namespaces: Vec<&'static str>,
    registrations: Vec<Key>,
    places: usize,
    controllers: RefCell<Vec<Option<Rc<Controller>>>>,
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
}

/// The store goes back to an earlier state in one of this many schedules.
const ROLLBACK_IN: u64 = 8;

/// How often the observer checks the whole state, in milliseconds.
const TICK: u64 = 100;

/// Plays the schedule of a seed.
pub fn play(seed: u64, without: Without, traced: bool) -> Outcome {
    let run = Run::draw(seed, without);
    if traced {
        *run.check.trace.borrow_mut() = Some(Vec::new());
        let check = run.check.clone();
        *run.network.told.borrow_mut() = Some(Rc::new(move |what| check.tell(what)));
    }
    run.play();
    let outcome = Outcome {
        violation: run.check.violation.borrow_mut().take(),
        trace: run.check.trace.borrow_mut().take().unwrap_or_default(),
        millis: run.executor.now(),
        prunes: run.check.prunes.get(),
    };
    run.network.end();
    run.executor.end();
    outcome
}

const REGISTRATIONS: [(&str, &str); 3] = [("shop", "cart"), ("yard", "crane"), ("shop", "till")];

impl Run {
    fn draw(seed: u64, without: Without) -> Rc<Self> {
        let executor = Executor::new(seed);
        let network = Network::new(executor.clone());
        let random = &executor.random;
        let check = Rc::new(Check::default());
        let places = random.pick(&[1, 1, 2, 2, 3]);
        let elected = random.percent(50) || places > 1;
        let ranges: OutsideRanges = ["shop", "yard"]
            .iter()
            .map(|namespace| format!("{namespace}=192.0.2.0/24").parse().expect("a range"))
            .collect();
        let setup = Rc::new(Setup {
            network: network.clone(),
            check: check.clone(),
            ranges,
            style: PlanSettings {
                publish_endpoints: random.percent(50),
                max_endpoints_per_slice: random.pick(&[2, 3, 5, 100]),
            },
            leadership: if elected { Leadership::Elected } else { Leadership::Anarchy },
            without,
            stale_lists: Cell::new(0),
        });
        let observer = check.clone();
        network.observe(Rc::new(move |api, caller, purpose, took| {
            observer.took(api, caller, purpose, took);
        }));
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
            setup,
            namespaces,
            registrations,
            places,
            controllers: RefCell::new(vec![None; places]),
            this: RefCell::default(),
            stormy: Cell::new(true),
            overstayed: RefCell::default(),
            healthy_for: Cell::new(0),
            restarts: places == 1 && random.percent(8),
            calm: 6000,
            protected: Cell::new(false),
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

    pub fn person(&self, call: Call) {
        let _ = self.network.execute(&Caller::Person, call, None);
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

    pub fn controller(&self, place: usize) -> Option<Rc<Controller>> {
        self.controllers.borrow()[place].clone()
    }

    pub fn crash(&self, place: usize) {
        if let Some(controller) = self.controllers.borrow_mut()[place].take() {
            self.check.tell(|| format!("controller {place} crashes"));
            self.executor.crash(controller.process);
            self.network.forget(controller.process);
            self.check.ended(controller.process);
        }
    }

    pub fn start_controller(&self, place: usize) {
        if self.controllers.borrow()[place].is_none() {
            let controller = Controller::start(&self.setup, place);
            self.controllers.borrow_mut()[place] = Some(controller);
        }
    }

    pub fn restart_controllers(&self) {
        for place in 0..self.places {
            self.crash(place);
            self.start_controller(place);
        }
    }

    pub fn edit(&self, n: usize, change: impl FnOnce(&mut ServiceRegistrationSpec)) {
        let key = self.registration(n);
        let known = self.network.api.borrow().get(Kind::Registration, &key).cloned();
        let Some(Object::Registration(known)) = known else { return };
        let mut next = (*known).clone();
        change(&mut next.spec);
        if next.spec.protection.as_ref().is_some_and(|protection| protection.min_ready > 0) {
            self.protected.set(true);
        }
        self.person(Call::Replace(Object::Registration(Arc::new(next))));
    }

    fn spec(&self, key: &Key) -> Registration {
        match self.network.api.borrow().get(Kind::Registration, key) {
            Some(Object::Registration(object)) => Registration::validate(object),
            _ => unreachable!("registrations stay"),
        }
    }

    /// Makes the registrations, workloads and controllers that were drawn.
    fn furnish(&self) {
        let random = self.random();
        for key in &self.registrations {
            let (ttl, interval) = fault::pace(random);
            self.person(Call::Create(Object::Registration(Arc::new(registration(
                key, ttl, interval,
            )))));
        }
        if random.percent(20) {
            Fault::MinReady { registration: random.index(3), min_ready: 2 }.strike(&self.rc());
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
                Fault::ControllerClock { place, millis: 40_000_000 }.strike(&self.rc());
            }
            let this = self.rc();
            self.executor.after(random.between(0, 300), move || this.start_controller(place));
        }
    }

    fn play(&self) {
        self.furnish();
        let ttl = self.check.longest_ttl();
        let random = self.random();
        self.advance(random.between(ttl / 2, ttl * 3 / 2));
        if self.restarts {
            return self.restart_again_and_again(ttl);
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
        self.advance(horizon);
        self.calm_down();
    }

    /// An instance dies, and each process ends before it could have given the instance a whole ttl (L5).
    fn restart_again_and_again(&self, ttl: u64) {
        let random = self.random();
        Fault::Die { who: random.index(64) }.strike(&self.rc());
        let (every, times) = (ttl * random.between(6, 9) / 10, 12);
        Fault::CrashLoop { place: 0, every, times }.strike(&self.rc());
        self.advance(every * times);
        self.calm_down();
    }

    /// Lets time pass, and stops early if something is violated.
    fn advance(&self, millis: u64) {
        let end = self.executor.now() + millis;
        while self.executor.now() < end && self.check.violation.borrow().is_none() {
            let tick = (self.executor.now() + TICK).min(end);
            while self.executor.step(tick) {
                self.check.look(&self.network, &self.controllers.borrow());
                if self.check.violation.borrow().is_some() {
                    return;
                }
            }
            self.look_for_the_dead();
        }
    }

    fn is_healthy(&self) -> bool {
        let network = &self.network;
        let weather = network.weather.get();
        let fair = weather.latency == FAIR.latency
            && weather.lost + weather.unanswered + weather.refused == 0;
        let leads = |controller: &Rc<Controller>| {
            self.check.leads_now(controller.process)
                && self.executor.runs(controller.process)
                && network.sees_all(controller.process)
        };
        network.mode.get() == Mode::Up
            && fair
            && weather.lag == FAIR.lag
            && network.nobody_is_cut()
            && self.setup.stale_lists.get() == 0
            && self.controllers.borrow().iter().flatten().any(leads)
    }

    /// P2 under faults. Only healthy stretches of time count, each without its beginning, in which proofs must
    /// be made again. Three ttls of such time are enough for a dead instance to leave. With the hold for a
    /// broken path, thirteen are enough, because many silent instances look like a broken path.
    fn look_for_the_dead(&self) {
        let healthy = self.is_healthy();
        self.healthy_for.set(if healthy { self.healthy_for.get() + TICK } else { 0 });
        // If only restarts go wrong, no process waits for a lost answer.
        let waits = if self.restarts { 500 } else { 6000 };
        let beginning = (self.check.widest_slack() / 4).clamp(250, 10_000) * 2 + waits;
        let workloads = self.check.workloads();
        let many = workloads.len() >= 10;
        let bound = self.check.longest_ttl() * if many { 13 } else { 3 } + 1000;
        let mut overstayed = self.overstayed.borrow_mut();
        for key in &self.registrations {
            let published = self.check.published(key);
            overstayed.retain(|(of, address), _| of != key || published.contains(address));
            for workload in &workloads {
                let address = workload.ip();
                if workload.key != *key || !published.contains(&address) {
                    continue;
                }
                if workload.lives() {
                    overstayed.remove(&(key.clone(), address));
                    continue;
                }
                let spent = overstayed.entry((key.clone(), address)).or_default();
                if healthy && self.healthy_for.get() > beginning {
                    *spent += TICK;
                }
                if *spent > bound && !self.protected.get() {
                    self.check.fail(|| format!("P2: {address} of {key} is dead, and still there"));
                }
            }
        }
    }
}

fn registration(key: &Key, ttl: u64, interval: u64) -> ServiceRegistration {
    let spec = ServiceRegistrationSpec {
        ttl: format!("{ttl}ms"),
        interval: format!("{interval}ms"),
        ports: vec![PortSpec {
            name: "http".to_owned(),
            port: 80,
            protocol: "TCP".to_owned(),
            ..PortSpec::default()
        }],
        pod_selector: Some(LabelSelector::default()),
        ..ServiceRegistrationSpec::default()
    };
    let mut object = ServiceRegistration::new(&key.name, spec);
    object.metadata.namespace = Some(key.namespace.clone());
    object
}
