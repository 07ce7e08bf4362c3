//! Crashes, suspensions and wrong clocks of the operator.

use std::rc::Rc;

use super::{clock, span};
use crate::{random::Random, run::Run};

#[derive(Debug, Clone)]
pub enum Fault {
    Crash { place: usize, lasts: u64 },
    CrashLoop { place: usize, every: u64, times: u64 },
    Suspend { place: usize, lasts: u64 },
    Clock { place: usize, millis: i64 },
}

impl Fault {
    pub fn draw(random: &Random, ttl: u64) -> Self {
        let (place, lasts) = (random.index(3), span(random, ttl));
        match random.between(0, 7) {
            0..=2 => Self::Crash { place, lasts: lasts / random.between(1, 10) },
            3 => {
                let every = ttl * random.between(4, 9) / 10;
                Self::CrashLoop { place, every, times: random.between(3, 8) }
            }
            4..=6 => Self::Suspend { place, lasts },
            _ => Self::Clock { place, millis: clock(random) },
        }
    }

    pub fn strike(self, run: &Rc<Run>) {
        match self {
            Self::Crash { place, lasts } => {
                let place = run.place(place);
                run.crash(place);
                run.later(lasts, move |run| run.start_replica(place));
            }
            Self::CrashLoop { place, every, times } => {
                crash_again(run, run.place(place), every, times);
            }
            Self::Suspend { place, lasts } => {
                let Some(replica) = run.replica(run.place(place)) else { return };
                let process = replica.process;
                run.executor.suspend(process);
                run.later(lasts, move |run| run.executor.resume(process));
            }
            Self::Clock { place, millis } => run.check.set_skew(run.place(place), millis),
        }
    }
}

fn crash_again(run: &Rc<Run>, place: usize, every: u64, times: u64) {
    run.crash(place);
    run.start_replica(place);
    if times > 0 {
        run.later(every, move |run| crash_again(run, place, every, times - 1));
    }
}
