//! A process of the operator: the program that ships, on the simulated connection.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use beatkeeper::controller::{
    self, Args, Clock, Compared, ComparedPlans, Decided, Host, Observer, Process, Settings,
    Undecided,
};
use beatkeeper_core::{
    decide::verdict::Suspect,
    liveness::{index::Index, proven_time::ProvenTime, ttl::TtlHistory},
    vocabulary::{address::AddressSet, key::Key, monotonic_time::MonotonicTime},
};
use clap::Parser;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    check::millis,
    connection::{self, Connection},
    executor::ProcessId,
    fate::Fate,
    network::Network,
    object::OPERATOR,
    rules::Without,
};

/// How the operator is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Style {
    pub publish_endpoints: bool,
    pub max_endpoints_per_slice: usize,
    /// Whether the replicas elect a leader. Without, each of them leads at all times.
    pub elected: bool,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: Args,
}

impl Style {
    fn settings(self) -> Settings {
        static KNOWN: Mutex<BTreeMap<Style, Settings>> = Mutex::new(BTreeMap::new());
        let read = || {
            let flags = [
                "beatkeeper".to_owned(),
                "--outside-range=shop=192.0.2.0/24,yard=192.0.2.0/24".to_owned(),
                format!("--publish-endpoints={}", self.publish_endpoints),
                format!("--max-endpoints-per-slice={}", self.max_endpoints_per_slice),
                format!("--leader-elect={}", self.elected),
            ];
            Settings::try_from(Flags::parse_from(flags).args).expect("settings")
        };
        KNOWN.lock().expect("no panic").entry(self).or_insert_with(read).clone()
    }
}

/// One process of the operator.
#[derive(Clone)]
pub struct Replica {
    pub place: usize,
    pub process: ProcessId,
    pub born: u64,
}

impl Replica {
    /// Starts a process at this place.
    pub fn start(network: &Rc<Network>, place: usize, style: Style) -> Self {
        let fate = Arc::new(Fate::default());
        let process = network.executor.start_operator(fate.clone());
        let replica = Self { place, process, born: network.executor.now() };
        network.check.born(place, process);
        let tasks = Process::supervised(fate.clone());
        let host = Host {
            api_server: Connection { process, place },
            namespace: OPERATOR.to_owned(),
            identity: format!("replica-{place}-{}", process.0),
            clock: Clock::of_the_runtime(WALLS[place]),
            process: tasks.clone(),
            observer: Arc::new(Watcher(replica.clone())),
            collector: None,
            gateways: None,
        };
        let run = controller::run_on(host, style.settings(), CancellationToken::new());
        fate.begin(tokio::spawn(tasks.task(run)).abort_handle());
        replica
    }

    /// Converts a moment of this process into the time of the simulation.
    pub fn absolute(&self, moment: MonotonicTime) -> u64 {
        self.born + millis(moment.since(MonotonicTime::default()))
    }
}

thread_local! {
    /// How many decisions each process has begun about each registration.
    static DECISIONS: RefCell<BTreeMap<(ProcessId, Key), usize>> = RefCell::default();
}

/// For so many decisions of a process [`Without::Grace`] shows nothing as published: the one at the start of the term,
/// which writes nothing, and the first of those that write.
const FIRST_DECISIONS: usize = 2;

/// The wall clocks of the replicas, each with an error of its own.
const WALLS: [fn() -> Timestamp; 3] = [|| wall(0), || wall(1), || wall(2)];

fn wall(place: usize) -> Timestamp {
    let now = connection::network().map_or(0, |network| {
        i64::try_from(network.executor.now()).expect("small") + network.check.skew(place)
    });
    Timestamp::from_microsecond(1_800_000_000_000_000 + now * 1000).expect("in range")
}

/// Shows the checks what a process decides, and leaves out one rule.
struct Watcher(Replica);

impl Watcher {
    fn without(&self) -> Without {
        connection::network().map_or(Without::Nothing, |network| network.without)
    }
}

impl Observer for Watcher {
    fn keeps(&self, index: &Arc<Mutex<Index>>) {
        if let Some(network) = connection::network() {
            network.check.keeps(self.0.process, index.clone());
        }
    }

    fn leads(&self, leads: bool) {
        let Some(network) = connection::network() else { return };
        if leads {
            network.check.leads(self.0.place, self.0.process);
        } else {
            network.check.leads_no_more(self.0.process);
        }
    }

    fn decided(&self, decided: &Decided<'_>) {
        if let Some(network) = connection::network() {
            network.check.decided(&self.0, decided);
        }
    }

    /// What a rule sees is changed for all instances, so a process without a rule decides about all of them.
    fn keeps_from(&self) -> usize {
        if self.without() == Without::Nothing { 0 } else { usize::MAX }
    }

    fn compares(&self) -> bool {
        true
    }

    fn compared(&self, kept: &Compared<'_>) {
        if let Some(network) = connection::network() {
            network.check.compared(kept);
        }
    }

    fn compared_plans(&self, plans: &ComparedPlans<'_>) {
        if let Some(network) = connection::network() {
            network.check.compared_plans(plans);
        }
    }

    fn suspects(&self, suspects: &mut Vec<Suspect>) {
        if self.without() == Without::TheMissing {
            suspects.retain(|suspect| suspect.deadline.is_some());
        }
    }

    fn notices_rollbacks(&self) -> bool {
        self.without() != Without::Rollbacks
    }

    fn decides(&self, inputs: &mut Undecided<'_, '_>) {
        match self.without() {
            Without::SeenMoments => {
                let wall = wall(self.0.place).as_microsecond();
                for record in &mut *inputs.records {
                    let Some(renewed) = record.token.renewed else { continue };
                    let ago = u64::try_from((wall - renewed) / 1000).unwrap_or(0);
                    record.seen = inputs.now - Duration::from_millis(ago);
                }
            }
            Without::Probes => {
                inputs.evidence.path = ProvenTime::without_gaps();
                inputs.evidence.proven = ProvenTime::without_gaps();
                inputs.evidence.probed = Some(inputs.now);
                inputs.evidence.unproven = None;
            }
            Without::Guard => {
                inputs.evidence.proven.clone_from(&inputs.evidence.path);
                inputs.evidence.broken = None;
            }
            Without::TtlHistory => {
                inputs.ttl = Box::leak(Box::new(TtlHistory::new(inputs.registration.ttl)));
            }
            Without::Grace => {
                let key = (self.0.process, inputs.registration.key.clone());
                let before = DECISIONS.with_borrow_mut(|all| {
                    let count = all.entry(key).or_default();
                    *count += 1;
                    *count - 1
                });
                if before < FIRST_DECISIONS {
                    inputs.published = Box::leak(Box::new(AddressSet::new()));
                }
            }
            _ => {}
        }
    }
}
