//! The faults, and the actions of people.

use std::{rc::Rc, sync::Arc};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use beatkeeper_core::{objects::marks::SERVICE_NAME_LABEL, vocabulary::key::Key};
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    api::{Backup, Call},
    network::{Caller, FAIR, Mode, Weather},
    object::{KINDS, Kind, Object},
    random::Random,
    run::Run,
    workload::Workload,
};

/// The workloads that a fault cuts off.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    All,
    Namespace(usize),
    One(usize),
}

/// Durations are in milliseconds. An index is taken modulo the number of objects that it selects from.
#[derive(Debug, Clone)]
pub enum Fault {
    Outage {
        frozen: bool,
        lasts: u64,
    },
    Weather {
        weather: Weather,
        lasts: u64,
    },
    CutWorkloads {
        who: Who,
        lasts: u64,
    },
    CutController {
        place: usize,
        lasts: u64,
    },
    Stall {
        place: usize,
        kind: Kind,
        lasts: u64,
    },
    Break {
        place: usize,
        kind: Kind,
        resumable: bool,
    },
    Repeat {
        place: usize,
        kind: Kind,
        events: usize,
    },
    StaleLists {
        lasts: u64,
    },
    Crash {
        place: usize,
        lasts: u64,
    },
    CrashLoop {
        place: usize,
        every: u64,
        times: u64,
    },
    Suspend {
        place: usize,
        lasts: u64,
    },
    ControllerClock {
        place: usize,
        millis: i64,
    },
    Die {
        who: usize,
    },
    MassDeath {
        namespace: usize,
    },
    Leave {
        who: usize,
    },
    Return {
        who: usize,
    },
    ReplacePod {
        who: usize,
    },
    SuspendWorkload {
        who: usize,
        lasts: u64,
    },
    WorkloadClock {
        who: usize,
        millis: i64,
    },
    Strip {
        who: usize,
        lasts: u64,
    },
    Spec {
        registration: usize,
        ttl: u64,
        interval: u64,
    },
    MinReady {
        registration: usize,
        min_ready: i32,
    },
    DeleteService {
        registration: usize,
    },
    DeleteSlice {
        registration: usize,
    },
    ForeignSlice {
        registration: usize,
        lasts: u64,
    },
    /// A backup is made now. After the time `after`, the API server is stopped for the time `down`, and the
    /// backup is restored.
    Rollback {
        after: u64,
        down: u64,
        caught_up: bool,
        restart: bool,
    },
}

const DAY: u64 = 86_400_000;

/// Draws a duration that is relevant for a ttl, from a tenth of the ttl to three times the ttl.
fn span(random: &Random, ttl: u64) -> u64 {
    let about = random.pick(&[1, 3, 6, 9, 10, 12, 20, 30]) * ttl / 10;
    random.between(about * 8 / 10, about * 12 / 10).max(1)
}

fn clock(random: &Random) -> i64 {
    let millis = i64::try_from(random.between(0, 2 * DAY)).expect("small");
    millis - i64::try_from(DAY).expect("small")
}

/// Draws a pace: ttl and interval, in milliseconds.
pub fn pace(random: &Random) -> (u64, u64) {
    let ttl = random.pick(&[1000, 2000, 2000, 3000, 3000, 5000, 5000, 5000, 10_000, 20_000]);
    let interval = (ttl * random.between(20, 70) / 100).max(100);
    (ttl, interval)
}

impl Fault {
    pub fn draw(random: &Random, ttl: u64) -> Self {
        let place = random.index(3);
        let who = random.index(64);
        let registration = random.index(3);
        let lasts = span(random, ttl);
        let kind = random.pick(&[
            Kind::Lease,
            Kind::Lease,
            Kind::Lease,
            Kind::Pod,
            Kind::Service,
            Kind::Slice,
            Kind::Slice,
            Kind::Endpoints,
            Kind::Registration,
        ]);
        match random.between(0, 41) {
            0..=3 => Self::Outage { frozen: random.percent(60), lasts },
            4 | 5 => Self::Weather { weather: weather(random), lasts },
            6 | 7 => {
                let all = [Who::All, Who::Namespace(who), Who::One(who)];
                Self::CutWorkloads { who: random.pick(&all), lasts }
            }
            8 | 9 => Self::CutController { place, lasts },
            10..=12 => Self::Stall { place, kind, lasts },
            13 | 14 => Self::Break { place, kind, resumable: random.percent(40) },
            15 => Self::Repeat { place, kind, events: random.index(12) + 1 },
            16 => Self::StaleLists { lasts },
            17..=19 => Self::Crash { place, lasts: lasts / random.between(1, 10) },
            20 => Self::CrashLoop {
                place,
                every: ttl * random.between(4, 9) / 10,
                times: random.between(3, 8),
            },
            21..=23 => Self::Suspend { place, lasts },
            24 => Self::ControllerClock { place, millis: clock(random) },
            25..=27 => Self::Die { who },
            28 => Self::MassDeath { namespace: who },
            29 => Self::Leave { who },
            30 | 31 => Self::Return { who },
            32 => Self::ReplacePod { who },
            33 => Self::SuspendWorkload { who, lasts },
            34 => Self::WorkloadClock { who, millis: clock(random) },
            35 => Self::Strip { who, lasts },
            36 => {
                let (ttl, interval) = pace(random);
                Self::Spec { registration, ttl, interval }
            }
            37 => Self::MinReady { registration, min_ready: random.pick(&[0, 1, 2, 4]) },
            38 => Self::DeleteService { registration },
            39 => Self::DeleteSlice { registration },
            40 => Self::ForeignSlice { registration, lasts },
            _ => Self::Leave { who },
        }
    }

    /// Draws a rollback of the store within half of `horizon`.
    pub fn rollback(random: &Random, ttl: u64, horizon: u64) -> Self {
        Self::Rollback {
            after: random.between(ttl / 10, horizon / 2),
            // No store can be restored within half a second.
            down: random.between(600, ttl.max(700)),
            caught_up: random.percent(40),
            restart: random.percent(25),
        }
    }

    /// Starts the fault, and schedules its end.
    pub fn strike(self, run: &Rc<Run>) {
        run.check.tell(|| format!("{self:?}"));
        let network = &run.network;
        match self {
            Self::Outage { frozen, lasts } => {
                network.set_mode(if frozen { Mode::Frozen } else { Mode::Down });
                run.later(lasts, |run| run.network.set_mode(Mode::Up));
            }
            Self::Weather { weather, lasts } => {
                network.weather.set(weather);
                run.later(lasts, |run| run.network.weather.set(FAIR));
            }
            Self::CutWorkloads { who, lasts } => cut_workloads(run, who, lasts),
            Self::CutController { place, lasts } => {
                let place = run.place(place);
                network.cut(Caller::Controller(place));
                KINDS.iter().for_each(|kind| network.stall(place, *kind));
                run.later(lasts, move |run| {
                    run.network.mend(&Caller::Controller(place));
                    KINDS.iter().for_each(|kind| run.network.unstall(place, *kind));
                });
            }
            Self::Stall { place, kind, lasts } => {
                let place = run.place(place);
                network.stall(place, kind);
                run.later(lasts, move |run| run.network.unstall(place, kind));
            }
            Self::Break { place, kind, resumable } => {
                network.break_watches(run.place(place), kind, resumable);
            }
            Self::Repeat { place, kind, events } => network.repeat(run.place(place), kind, events),
            Self::StaleLists { lasts } => {
                run.setup.stale_lists.set(60);
                run.later(lasts, |run| run.setup.stale_lists.set(0));
            }
            Self::Crash { place, lasts } => {
                let place = run.place(place);
                run.crash(place);
                run.later(lasts, move |run| run.start_controller(place));
            }
            Self::CrashLoop { place, every, times } => {
                crash_again(run, run.place(place), every, times)
            }
            Self::Suspend { place, lasts } => {
                let Some(controller) = run.controller(run.place(place)) else { return };
                let process = controller.process;
                run.executor.suspend(process);
                run.later(lasts, move |run| run.executor.resume(process));
            }
            Self::ControllerClock { place, millis } => run.check.set_skew(run.place(place), millis),
            Self::Die { who } => run.workload(who).die(),
            Self::MassDeath { namespace } => {
                let namespace = run.namespace(namespace);
                let all = run.check.workloads();
                all.iter().filter(|one| one.namespace == namespace).for_each(|one| one.die());
            }
            Self::Leave { who } => leave(run, &run.workload(who)),
            Self::Return { who } => run.workload(who).start(),
            Self::ReplacePod { who } => {
                let workload = run.workload(who);
                if workload.in_pod {
                    workload.replace_pod();
                }
            }
            Self::SuspendWorkload { who, lasts } => {
                let Some(process) = run.workload(who).process.get() else { return };
                run.executor.suspend(process);
                run.later(lasts, move |run| run.executor.resume(process));
            }
            Self::WorkloadClock { who, millis } => run.workload(who).skew.set(millis),
            Self::Strip { who, lasts } => {
                let lease = run.workload(who).lease();
                relabel(run, &lease, None);
                run.later(lasts, move |run| restore(run, &lease));
            }
            Self::Spec { registration, ttl, interval } => {
                run.edit(registration, |spec| {
                    spec.ttl = format!("{ttl}ms");
                    spec.interval = format!("{interval}ms");
                });
            }
            Self::MinReady { registration, min_ready } => run.edit(registration, |spec| {
                spec.protection.get_or_insert_default().min_ready = min_ready;
            }),
            Self::DeleteService { registration } => {
                let (kind, key) = (Kind::Service, run.registration(registration));
                run.person(Call::Delete { kind, key, uid: None, version: None });
            }
            Self::DeleteSlice { registration } => {
                delete_slice(run, &run.registration(registration))
            }
            Self::Rollback { after, down, caught_up, restart } => {
                let backup = network.api.borrow().back_up();
                run.later(after, move |run| {
                    run.network.stop_for_a_restore();
                    run.later(down, move |run| put_back(run, backup, caught_up, restart));
                });
            }
            Self::ForeignSlice { registration, lasts } => {
                let key = run.registration(registration);
                run.person(Call::Create(Object::Slice(Arc::new(foreign_slice(&key)))));
                run.later(lasts, move |run| remove_foreign_slice(run, &key));
            }
        }
    }
}

fn put_back(run: &Rc<Run>, backup: Backup, caught_up: bool, restart: bool) {
    let network = &run.network;
    if network.mode.get() != Mode::Down {
        // Another fault has already started the API server.
        return;
    }
    run.check.tell(|| "the store goes back".to_owned());
    network.api.borrow_mut().restore(backup, caught_up);
    run.check.went_back(&network.api.borrow(), run.executor.now());
    for workload in run.check.workloads() {
        workload.follow_pod();
        workload.collect();
    }
    if restart {
        run.restart_controllers();
    }
    network.set_mode(Mode::Up);
}

/// Deregisters the instance.
pub fn leave(run: &Run, workload: &Workload) {
    workload.die();
    let (kind, key) = (Kind::Lease, workload.lease());
    run.person(Call::Delete { kind, key, uid: None, version: None });
}

fn weather(random: &Random) -> Weather {
    Weather {
        latency: random.pick(&[3, 50, 400, 3000]),
        lost: random.pick(&[0, 5, 30]),
        unanswered: random.pick(&[0, 5, 30]),
        refused: random.pick(&[0, 10, 50]),
        lag: random.pick(&[3, 100, 1000]),
    }
}

fn cut_workloads(run: &Rc<Run>, who: Who, lasts: u64) {
    match who {
        Who::All | Who::Namespace(_) => {
            let namespaces = match who {
                Who::Namespace(n) => vec![run.namespace(n)],
                _ => run.namespaces.clone(),
            };
            namespaces.iter().for_each(|namespace| run.network.cut_namespace(namespace));
            run.later(lasts, move |run| {
                namespaces.iter().for_each(|namespace| run.network.mend_namespace(namespace));
            });
        }
        Who::One(n) => {
            let caller = run.workload(n).caller();
            run.network.cut(caller.clone());
            run.later(lasts, move |run| run.network.mend(&caller));
        }
    }
}

fn crash_again(run: &Rc<Run>, place: usize, every: u64, times: u64) {
    run.crash(place);
    run.start_controller(place);
    if times > 0 {
        run.later(every, move |run| crash_again(run, place, every, times - 1));
    }
}

/// A person changes the label of a Lease or removes it.
fn relabel(run: &Rc<Run>, lease: &Key, registration: Option<&str>) {
    let known = run.network.api.borrow().get(Kind::Lease, lease).cloned();
    let Some(mut known) = known else { return };
    let labels = known.meta_mut().labels.get_or_insert_default();
    match registration {
        Some(registration) => labels.insert(REGISTRATION_LABEL.to_owned(), registration.to_owned()),
        None => labels.remove(REGISTRATION_LABEL),
    };
    run.person(Call::Replace(known));
}

pub fn restore(run: &Rc<Run>, lease: &Key) {
    let registration = lease.name.split('.').next().unwrap_or_default().to_owned();
    relabel(run, lease, Some(&registration));
}

fn delete_slice(run: &Rc<Run>, service: &Key) {
    let key = {
        let api = run.network.api.borrow();
        api.all(Kind::Slice)
            .find(|slice| slice.is_operators() && slice.key().namespace == service.namespace)
            .map(Object::key)
    };
    if let Some(key) = key {
        run.person(Call::Delete { kind: Kind::Slice, key, uid: None, version: None });
    }
}

fn foreign_slice(service: &Key) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some(service.namespace.clone()),
            name: Some(format!("{}-foreign", service.name)),
            labels: Some([(SERVICE_NAME_LABEL.to_owned(), service.name.clone())].into()),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec!["198.51.100.1".to_owned()],
            ..Endpoint::default()
        }],
        ports: None,
    }
}

pub fn remove_foreign_slice(run: &Rc<Run>, service: &Key) {
    let key = Key::new(&service.namespace, format!("{}-foreign", service.name));
    run.person(Call::Delete { kind: Kind::Slice, key, uid: None, version: None });
}
