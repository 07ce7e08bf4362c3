//! The subcommands of `beatkeeper agent`.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use beatkeeper_api::duration;
use clap::{Args, Subcommand};

use super::{
    arguments::{BeatArgs, InstanceArgs},
    connection::connect,
    exec, one_shot,
    run::{self, Kind},
    settings::Settings,
    status,
};

/// Beat for processes and targets that do not beat themselves.
#[derive(Debug, Clone, Args)]
pub struct Command {
    #[command(subcommand)]
    pub(super) action: Action,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Action {
    /// Beat until stopped, then deregister; a failed probe makes the instance Failing.
    Run(BeatArgs),
    /// Run a command and beat while it runs; pass on signals and its exit code.
    Exec {
        #[command(flatten)]
        args: BeatArgs,
        /// The command and its arguments, after --.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Probe remote targets and beat for them; a target gets no more beats while its probes fail.
    Proxy(BeatArgs),
    /// Register an instance with its first beat, and leave the next ones to another program.
    Register {
        #[command(flatten)]
        settings: Box<Settings>,
        /// Give up after this time.
        #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Beat once for a registered instance.
    Heartbeat(InstanceArgs),
    /// Drain an instance: it is published as terminating and gets no new connections.
    Drain {
        #[command(flatten)]
        instance: InstanceArgs,
        /// Why the instance drains.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Deregister an instance: it leaves at once.
    Deregister(InstanceArgs),
    /// List the instances of a registration, or of all registrations in the namespace, with their states.
    Status(status::Args),
}

/// Runs a subcommand until it ends.
///
/// # Errors
/// An error if the subcommand cannot start, because the settings are unusable or there is no configuration
/// for the API server. A subcommand that beats keeps retrying after any failure. A subcommand that acts once
/// returns the reason why it failed.
pub fn run_command(command: Command) -> Result<ExitCode> {
    // One thread suffices for all instances, and costs a sidecar the least.
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
        Action::Run(args) => run::run(args, Kind::Local).await,
        Action::Exec { args, command } => exec::run(args, command).await,
        Action::Proxy(args) => run::run(args, Kind::Remote).await,
        Action::Register { settings, timeout } => one_shot::register(*settings, timeout).await,
        Action::Heartbeat(instance) => one_shot::heartbeat(instance).await,
        Action::Drain { instance, note } => one_shot::drain(instance, note).await,
        Action::Deregister(instance) => one_shot::deregister(instance).await,
        Action::Status(args) => {
            let (connection, namespace) = connect()?;
            status::print(args, connection.client, &namespace).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command as Process};

    use clap::Parser;
    use serde_json::Value;

    use super::{
        super::{
            plan::{Environment, Plan},
            reap,
        },
        *,
    };
    use rustix::process::Signal;

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
        let Action::Run(args) = line.command.action else { panic!("{words:?}") };
        *args.settings
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
            Environment { namespace: "default".to_owned(), pod_name: Some("p".to_owned()) };
        Plan::of(settings, &around).expect("a plan");
    }

    #[test]
    fn the_unit_of_the_example_starts_an_agent_with_a_file_that_it_can_use() {
        let unit = example("systemd/beatkeeper-agent.service");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a start");
        let words: Vec<&str> = start.split(' ').skip(1).collect();
        settings(&words);
        let file = serde_saphyr::from_str(&example("systemd/agent.yaml")).expect("settings");
        let plan = Plan::of(file, &Environment::default()).expect("a plan");
        assert_eq!(plan.instances[0].probes.len(), 2);
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
