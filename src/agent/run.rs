//! `run` and `proxy`: beat until stopped; reload when asked.

use std::{future::pending, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    command::{Beating, attend, connect, pod_name, say_when_ready, stopping, unless_hurried},
    crew::{Changes, Crew},
    member::{OnFailure, Stage},
    plan::{self, Plan, Surroundings},
    settings::OnStop,
    signals::{Heard, Signals},
    systemd,
    tell::Teller,
};

/// A reload counts as done after this time, even if not every instance has beaten: until it is done,
/// `systemctl reload` cannot ask for another reload that corrects a mistake in the settings.
const RELOADED_WITHIN: Duration = Duration::from_secs(30);

/// What the agent beats for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Processes beside the agent.
    Beside,
    /// Targets that cannot beat.
    Afar,
}

impl Kind {
    fn on_failure(self) -> OnFailure {
        match self {
            Self::Beside => OnFailure::Tell { started_here: false },
            Self::Afar => OnFailure::FallSilent,
        }
    }

    /// Makes the plan from the current flags, variables and file.
    fn plan(self, beating: &Beating, namespace: &str) -> Result<Plan> {
        let settings = plan::read(*beating.settings.clone(), beating.config.as_deref())?;
        let namespace = namespace.to_owned();
        match self {
            Self::Beside => Plan::of(settings, &Surroundings { namespace, pod_name: pod_name() }),
            Self::Afar => Plan::for_targets(settings, namespace),
        }
    }

    /// Does the same on a thread that may block on a file, so that beats and signals do not wait.
    fn read(self, beating: &Beating, namespace: &str) -> Reading {
        let (beating, namespace) = (beating.clone(), namespace.to_owned());
        spawn_blocking(move || self.plan(&beating, &namespace))
    }
}

type Reading = JoinHandle<Result<Plan>>;

async fn end_of(reading: &mut Option<Reading>) -> Result<Plan> {
    match reading {
        Some(reading) => reading.await?,
        None => pending().await,
    }
}

/// Beats until a signal ends it. SIGHUP reads the settings again. SIGUSR1 ends it, and leaves the Leases.
///
/// # Errors
/// It cannot start, or deregistering at its end failed.
pub(super) async fn run(beating: Beating, kind: Kind) -> Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let (connection, namespace) = connect()?;
    let mut plan = kind.plan(&beating, &namespace)?;
    let teller = Teller::new(beating.verbose);
    let members = std::mem::take(&mut plan.members);
    let mut crew = Crew::start(members, kind.on_failure(), &connection, &teller);
    let _attending = attend(&plan.health_bind_address, &crew).await?;
    let (mut ready, mut is_started) = (say_when_ready(&crew), false);
    let mut reading: Option<Reading> = None;
    let signal = loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::End(signal) => break signal,
                Heard::PassOn(Signal::USR1) => {
                    stopping(Signal::USR1, &teller);
                    return Ok(leave(crew, &teller).await);
                }
                Heard::PassOn(Signal::HUP) => {
                    if reading.is_none() {
                        is_started |= ready.is_finished();
                        ready.abort();
                    }
                    systemd::reloading();
                    reading = Some(kind.read(&beating, &namespace));
                }
                Heard::PassOn(_) => {}
            },
            now = end_of(&mut reading) => {
                reading = None;
                plan = reload(&mut crew, plan, now, &beating, &teller).await;
                ready = match is_started {
                    true => say_when_reloaded(&crew, &teller),
                    false => say_when_ready(&crew),
                };
            }
        }
    };
    stopping(signal, &teller);
    if plan.on_stop == OnStop::Keep || kind == Kind::Afar {
        return Ok(leave(crew, &teller).await);
    }
    let end = async {
        crew.drain(plan.drain_delay, &teller).await;
        crew.stop().await
    };
    unless_hurried(end, &mut signals).await
}

/// Tells systemd that a reload is done, while the returned value is kept.
fn say_when_reloaded(crew: &Crew, teller: &Teller) -> AbortOnDropHandle<()> {
    let (beaten, teller) = (crew.all(Stage::Settled), teller.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        if timeout(RELOADED_WITHIN, beaten).await.is_err() {
            teller.say("reloaded, but not every instance has had a beat accepted yet");
        }
        systemd::ready();
    }))
}

async fn leave(crew: Crew, teller: &Teller) -> ExitCode {
    teller.say("the Leases stay: start again within ttl, or run beatkeeper agent deregister");
    crew.leave().await;
    ExitCode::SUCCESS
}

/// Continues with the current settings. Settings that cannot be used change nothing.
async fn reload(
    crew: &mut Crew,
    before: Plan,
    now: Result<Plan>,
    beating: &Beating,
    teller: &Teller,
) -> Plan {
    let mut now = match now {
        Ok(now) => now,
        Err(error) => {
            teller.say_error("not reloaded, all stays as it was: ", &error);
            return before;
        }
    };
    if beating.config.is_none() {
        teller.say(
            "nothing to reload: flags and variables stay what they were at the start; settings that are to \
             be changed belong in the file that --config names",
        );
        return before;
    }
    if now.health_bind_address != before.health_bind_address {
        teller.say(
            "healthBindAddress cannot be reloaded, and stays what it was: start again to change it",
        );
        now.health_bind_address.clone_from(&before.health_bind_address);
    }
    let Changes { added, changed, removed } = crew.reload(std::mem::take(&mut now.members)).await;
    teller.say(&format!("reloaded: {added} added, {changed} changed, {removed} removed"));
    now
}
