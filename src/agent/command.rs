//! The subcommands of `beatkeeper agent`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use beatkeeper_api::{duration, heartbeat::Health};
use beatkeeper_client::{
    Connection, OneShot,
    headers::Headers,
    heartbeat_loop::{BeatOptions, HeartbeatLoop},
    lease::{HealthReport, Identity},
    transport::{self, Source},
};
use clap::{Args, Subcommand};
use rustix::process::Signal;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    crew::Crew,
    exec, health,
    member::Stage,
    plan::{self, Plan, Surroundings},
    run::Kind,
    settings::Settings,
    signals::{self, Signals, ended_by},
    status, systemd,
    tell::Teller,
};

use crate::bind_address::BindAddress;

const USER_AGENT: &str = concat!("beatkeeper-agent/", env!("CARGO_PKG_VERSION"));

/// Beat for processes and targets that do not beat themselves.
#[derive(Debug, Clone, Args)]
pub struct Command {
    #[command(subcommand)]
    pub(super) action: Action,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Action {
    /// Beat until stopped, then deregister; a failed probe makes the instance Failing.
    Run(Beating),
    /// Run a command and beat while it runs; pass on signals and its exit code.
    Exec {
        #[command(flatten)]
        beating: Beating,
        /// The command and its arguments, after --.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Probe remote targets and beat for them; a target gets no more beats while its probes fail.
    Proxy(Beating),
    /// Register an instance with its first beat, and leave the next ones to another program.
    Register {
        #[command(flatten)]
        settings: Box<Settings>,
        /// Give up after this time.
        #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = patience)]
        timeout: Duration,
    },
    /// Beat once for a registered instance.
    Heartbeat(Who),
    /// Drain an instance: it is published as terminating and gets no new connections.
    Drain {
        #[command(flatten)]
        who: Who,
        /// Why the instance drains.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Deregister an instance: it leaves at once.
    Deregister(Who),
    /// List the instances of a registration, or of all registrations in the namespace, with their states.
    Status(status::Args),
}

/// Which instances beat, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Beating {
    #[command(flatten)]
    pub(super) settings: Box<Settings>,
    /// Read settings from this YAML file, and again at SIGHUP; flags and variables override it.
    #[arg(long, env = "BEATKEEPER_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print every beat.
    #[arg(long, short, env = "BEATKEEPER_VERBOSE")]
    pub(super) verbose: bool,
}

/// A registered instance.
#[derive(Debug, Clone, Args)]
pub(super) struct Who {
    /// Name of the ServiceRegistration.
    #[arg(long, env = "BEATKEEPER_REGISTRATION", value_name = "NAME")]
    registration: String,
    /// Its namespace [default: that of the kubeconfig's context, or of the agent's Pod].
    #[arg(long, short, env = "BEATKEEPER_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Name of the instance [default: $POD_NAME, or else the host name].
    #[arg(long, env = "BEATKEEPER_INSTANCE", value_name = "NAME")]
    instance: Option<String>,
}

fn patience(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

/// Runs a subcommand until it ends.
///
/// # Errors
/// An error if the subcommand cannot start, because the settings are unusable or there is no configuration
/// for the API server. A subcommand that beats keeps retrying after any failure. A subcommand that acts once
/// returns the reason why it failed.
pub fn run(command: Command) -> Result<ExitCode> {
    // One thread suffices for all hearts, and costs a sidecar the least.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(act(command.action));
    // A name lookup or a file access that hangs must not delay the end.
    runtime.shutdown_background();
    result
}

async fn act(action: Action) -> Result<ExitCode> {
    match action {
        Action::Run(beating) => super::run::run(beating, Kind::Beside).await,
        Action::Exec { beating, command } => exec(beating, command).await,
        Action::Proxy(beating) => super::run::run(beating, Kind::Afar).await,
        Action::Register { settings, timeout } => register(*settings, timeout).await,
        Action::Heartbeat(who) => {
            let (instance, name) = who.one_shot().await?;
            instance.heartbeat().await?;
            done(&format!("{name} has beaten"))
        }
        Action::Drain { who, note } => {
            let (instance, name) = who.one_shot().await?;
            instance
                .tell(&HealthReport { health: Health::Draining, note, provisional: false })
                .await?;
            done(&format!("{name} drains"))
        }
        Action::Deregister(who) => {
            let (instance, name) = who.one_shot().await?;
            let was_there = instance.deregister().await?;
            done(&format!(
                "{name} {}",
                if was_there { "deregistered" } else { "was not registered" }
            ))
        }
        Action::Status(args) => {
            let (connection, namespace) = connect()?;
            status::print(args, connection.client, &namespace).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn done(line: &str) -> Result<ExitCode> {
    Teller::new(false).say(line);
    Ok(ExitCode::SUCCESS)
}

async fn exec(beating: Beating, command: Vec<OsString>) -> Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let teller = Teller::new(beating.verbose);
    exec::run(beating, command, &mut signals, &teller).await
}

/// Reads all that beating needs: the plan from the current settings, and a connection to the API server.
pub(super) fn prepare(beating: &Beating) -> Result<(Plan, Connection)> {
    let settings = plan::read(*beating.settings.clone(), beating.config.as_deref())?;
    let (connection, namespace) = connect()?;
    let plan = Plan::of(settings, &Surroundings { namespace, pod_name: pod_name() })?;
    Ok((plan, connection))
}

async fn register(settings: Settings, limit: Duration) -> Result<ExitCode> {
    if settings.probes.is_some()
        || settings.health_bind_address.is_some()
        || settings.on_stop.is_some()
    {
        bail!(
            "register only registers: --probe, --on-stop and --health-bind-address belong to agent run"
        );
    }
    let (connection, namespace) = connect()?;
    let identity = settings.identity(&namespace, pod_name().as_deref())?;
    let options = BeatOptions { interval: Some(Duration::ZERO), ..BeatOptions::default() };
    let (_words, heard) = watch::channel(HealthReport::default());
    let heart =
        HeartbeatLoop::new(connection, identity, options, heard, Teller::new(false).report());
    let mut progress = heart.progress();
    let registered = async { progress.wait_for(|now| now.reported.is_some()).await.map(drop) };
    // When this process is registered, the heart is dropped, so the Lease stays for other programs.
    let registered = tokio::select! {
        _ = heart.run(CancellationToken::new()) => false,
        registered = timeout(limit, registered) => registered.is_ok_and(|told| told.is_ok()),
    };
    if !registered {
        bail!("not registered within {}", duration::format(limit));
    }
    Ok(ExitCode::SUCCESS)
}

impl Who {
    /// Returns the instance, and its name for messages.
    async fn one_shot(self) -> Result<(OneShot, String)> {
        let (connection, namespace) = connect()?;
        let Self { registration, namespace: said, instance } = self;
        let settings = Settings {
            registration: Some(registration),
            namespace: said,
            instance,
            ..Settings::default()
        };
        let identity: Identity = settings.identity(&namespace, pod_name().as_deref())?;
        let name = format!("{}/{}", identity.namespace, identity.lease_name());
        Ok((OneShot::new(connection, identity), name))
    }
}

pub(super) fn pod_name() -> Option<String> {
    std::env::var("POD_NAME").ok()
}

/// Returns a connection to the API server, and the default namespace of its configuration.
pub(super) fn connect() -> Result<(Connection, String)> {
    let source = Source::infer().context(
        "found no way to the API server: set KUBECONFIG, or run in a Pod with a ServiceAccount token",
    )?;
    let namespace = source.namespace().to_owned();
    let headers = Headers::default();
    let client = transport::connect(source, USER_AGENT, &headers)?;
    Ok((Connection { client, headers }, namespace))
}

/// Serves the state of the agent while the returned value is kept.
pub(super) async fn attend(address: &BindAddress, crew: &Crew) -> Result<tokio::task::JoinSet<()>> {
    let mut attending = tokio::task::JoinSet::new();
    if let BindAddress::At(address) = address {
        attending.spawn(health::serve(address, crew.watch()).await?);
    }
    attending.spawn(systemd::keep_watchdog());
    Ok(attending)
}

/// Tells systemd when each instance has had a beat accepted, while the returned value is kept.
pub(super) fn say_when_ready(crew: &Crew) -> AbortOnDropHandle<()> {
    let ready = crew.all(Stage::Settled);
    AbortOnDropHandle::new(tokio::spawn(async {
        ready.await;
        systemd::ready();
    }))
}

pub(super) fn stopping(signal: Signal, teller: &Teller) {
    systemd::stopping();
    teller.say(&format!("{}: stopping", signals::name(signal)));
}

/// Runs the end, unless a second signal asks to stop sooner. The Leases then stay, and the instances are
/// pruned when their ttl has passed.
pub(super) async fn unless_hurried(
    end: impl Future<Output = Result<()>>,
    signals: &mut Signals,
) -> Result<ExitCode> {
    tokio::select! {
        ended = end => ended.map(|()| ExitCode::SUCCESS),
        signal = signals.end() => Ok(ended_by(signal.as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command as Process};

    use clap::Parser;
    use serde_json::Value;

    use super::{super::reap, *};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: Command,
    }

    fn example(name: &str) -> String {
        let path = format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect(name)
    }

    /// The settings of an `agent run` with these arguments.
    fn settings(words: &[&str]) -> Settings {
        assert_eq!(words[0], "agent", "{words:?}");
        let line = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        let Action::Run(beating) = line.command.action else { panic!("{words:?}") };
        *beating.settings
    }

    #[test]
    fn the_sidecar_of_the_example_is_an_agent_that_beats() {
        let deployment: Value =
            serde_saphyr::from_str(&example("kubernetes/deployment.yaml")).expect("YAML");
        let sidecar = &deployment["spec"]["template"]["spec"]["initContainers"][0];
        let args = sidecar["args"].as_array().expect("args");
        let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
        let mut settings = settings(&args);
        assert!(settings.probes.is_some());
        settings.registration = Some("greeter".to_owned());
        let around =
            Surroundings { namespace: "default".to_owned(), pod_name: Some("p".to_owned()) };
        Plan::of(settings, &around).expect("a plan");
    }

    #[test]
    fn the_unit_of_the_example_starts_an_agent_with_a_file_that_it_can_use() {
        let unit = example("systemd/beatkeeper-agent.service");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a start");
        let words: Vec<&str> = start.split(' ').skip(1).collect();
        settings(&words);
        let file = serde_saphyr::from_str(&example("systemd/agent.yaml")).expect("settings");
        let plan = Plan::of(file, &Surroundings::default()).expect("a plan");
        assert_eq!(plan.members[0].probes.len(), 2);
    }
    /// The stop command of the unit, with `jobs` as a shell function: a shell prefers a function to a
    /// program.
    fn stop_of_the_unit(jobs: &str) -> String {
        let unit = example("systemd/beatkeeper-agent.service");
        let settings = unit.lines().filter(|line| !line.starts_with('#'));
        let names_itself = |line: &str| line.contains("beatkeeper-agent.service");
        assert!(!settings.into_iter().any(names_itself), "under another name it would not work");
        let stop = unit.lines().find_map(|line| line.strip_prefix("ExecStop=+/bin/sh -c '"));
        let stop = stop.and_then(|line| line.strip_suffix('\'')).expect("a stop");
        format!("systemctl() {{ echo '{jobs}'; }}; {}", stop.replace("%n", "shop-agent.service"))
    }

    #[test]
    fn the_unit_of_the_example_keeps_the_leases_at_a_restart_of_its_own_under_any_name() {
        let _alone = reap::ALONE.blocking_lock();
        for (jobs, keeps) in [
            ("  17 shop-agent.service     restart running", true),
            ("7 other.service stop waiting\n17 shop-agent.service restart running", true),
            ("17 shop-agent.service stop running", false),
            ("7 other.service restart waiting\n17 shop-agent.service stop running", false),
            ("17 shop-agent.service-2 restart running", false),
            ("17 shop-agentXservice restart running", false),
            ("", false),
        ] {
            let mut agent = Process::new("sleep").arg("60").spawn().expect("an agent");
            let mut stop = Process::new("sh")
                .args(["-c", &stop_of_the_unit(jobs)])
                .env("MAINPID", agent.id().to_string())
                .spawn()
                .expect("a shell");
            if keeps {
                let ended = agent.wait().expect("its end");
                assert_eq!(ended.signal(), Some(Signal::USR1.as_raw()), "{jobs}");
            }
            stop.wait().expect("its end");
            assert_eq!(agent.try_wait().expect("a state").is_some(), keeps, "{jobs}");
            agent.kill().expect("it ends");
            agent.wait().expect("its end");
        }
    }
}
