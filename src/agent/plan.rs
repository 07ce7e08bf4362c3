//! Makes, from the settings, the list of instances that one agent beats for.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use beatkeeper_api::text::plain;
use beatkeeper_client::{
    gateway::{GatewayNames, GatewaySettings},
    heartbeat_loop::BeatOptions,
    lease::{Identity, Location},
};

use super::{
    probe::Probe,
    settings::{OnStop, Settings},
};
use crate::bind_address::BindAddress;

/// The flags of the agent, for messages about gateways.
pub const GATEWAY_NAMES: GatewayNames = GatewayNames {
    gateway: "--gateway ($BEATKEEPER_GATEWAY)",
    ca_file: "--gateway-ca-file ($BEATKEEPER_GATEWAY_CA_FILE)",
    token_file: "--gateway-token-file ($BEATKEEPER_GATEWAY_TOKEN_FILE)",
};

/// What an agent has to do.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The instances that it beats for: at least one, and each once.
    pub instances: Vec<InstancePlan>,
    /// How long all instances drain before the end.
    pub drain_delay: Duration,
    /// What happens to their Leases at the end.
    pub on_stop: OnStop,
    /// Where the agent serves its own health.
    pub health_bind_address: BindAddress,
    /// Where the agent serves its metrics.
    pub metrics_bind_address: BindAddress,
    /// The gateways of all instances, if there are any.
    pub gateway: Option<GatewaySettings>,
}

/// One instance that the agent beats for.
#[derive(Debug, Clone, PartialEq)]
pub struct InstancePlan {
    /// The identity of the instance.
    pub identity: Identity,
    /// How often the instance beats.
    pub options: BeatOptions,
    /// How to find out whether the instance can serve. Without probes it counts as able to.
    pub probes: Vec<Probe>,
}

/// The defaults for what the settings leave out.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The namespace of the configuration for the API server.
    pub namespace: String,
    /// $POD_NAME.
    pub pod_name: Option<String>,
}

/// Reads the settings of a file and merges them with the flags, which take precedence.
///
/// # Errors
/// The file cannot be read, or has a setting that does not exist.
pub fn read(flags: Settings, file: Option<&Path>) -> Result<Settings> {
    let Some(path) = file else { return Ok(flags) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the file {}", path.display()))?;
    // An empty file has no settings.
    let said: Option<Settings> = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow!("the file {} cannot be used: {}", path.display(), told(&error)))?;
    Ok(flags.or(&said.unwrap_or_default()))
}

/// Explains what is wrong with a file, without the lines around the error and without values of a wrong type:
/// headers and commands of probes may hold secrets.
fn told(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{
        AliasError, SerdeInvalidType, SerdeInvalidValue, SerdeUnknownVariant,
    };
    let error = error.without_snippet();
    let expected = match error {
        AliasError { error, .. } => return told(error),
        SerdeInvalidType { expected, .. } | SerdeInvalidValue { expected, .. } => expected.clone(),
        SerdeUnknownVariant { expected, .. } => format!("one of {}", expected.join(", ")),
        other => return plain(&other.to_string()).into_owned(),
    };
    let place = error.location().map_or_else(String::new, |place| {
        format!(" at line {}, column {}", place.line(), place.column())
    });
    format!("expected {expected}{place}")
}

impl Plan {
    /// Makes a plan from the settings.
    ///
    /// # Errors
    /// The settings make no instance, or the same one twice; the error names the instance.
    pub fn of(mut settings: Settings, around: &Environment) -> Result<Self> {
        let drain_delay = settings.drain_delay.take().unwrap_or_default();
        let on_stop = settings.on_stop.take().unwrap_or_default();
        let health_bind_address = settings.health_bind_address.take().unwrap_or_default();
        let metrics_bind_address = settings.metrics_bind_address.take().unwrap_or_default();
        let gateway = GatewaySettings::of(
            settings.gateways.take().unwrap_or_default(),
            settings.gateway_ca_file.take(),
            settings.gateway_token_file.take(),
            GATEWAY_NAMES,
        )?;
        let instances = match settings.instances.take() {
            None => vec![InstancePlan::of(&settings, around)?],
            Some(instances) => {
                ensure!(!instances.is_empty(), "instances: is an empty list: name one at least");
                let instance = |(n, own): (usize, Settings)| {
                    own.stands_alone()
                        .and_then(|own| InstancePlan::of(&own.or(&settings), around))
                        .with_context(|| format!("instances[{n}]"))
                };
                instances.into_iter().enumerate().map(instance).collect::<Result<_>>()?
            }
        };
        let mut seen = BTreeSet::new();
        for InstancePlan { identity, .. } in &instances {
            let lease = format!("{}/{}", identity.namespace, identity.lease_name());
            if !seen.insert(lease) {
                bail!(
                    "the instance {} of {}/{} is there twice: two processes that beat for one name would hide each \
                     other's death; give each an instance: of its own",
                    identity.instance,
                    identity.namespace,
                    identity.registration
                );
            }
        }
        Ok(Self {
            instances,
            drain_delay,
            on_stop,
            health_bind_address,
            metrics_bind_address,
            gateway,
        })
    }

    /// Makes a plan for targets that cannot beat themselves.
    ///
    /// # Errors
    /// As [`of`](Self::of). Also an error: a target without a name of its own (it is not the host that the
    /// agent runs on), a target in a Pod (the Pod can run an agent), and a target without a probe (nothing
    /// could detect its death).
    pub fn for_targets(settings: Settings, namespace: String) -> Result<Self> {
        let named = |settings: &Settings| settings.instance.is_some();
        let each = settings.instances.as_ref();
        ensure!(
            each.map_or_else(|| named(&settings), |all| all.iter().all(named)),
            "each target needs a name: say it with --instance, or instance: in the file"
        );
        ensure!(
            settings.drain_delay.is_none(),
            "a target does not end with the agent, and is not drained: leave out --drain-delay"
        );
        ensure!(
            settings.on_stop.is_none(),
            "a target does not end with the agent, and its Lease always stays: leave out --on-stop"
        );
        // The agent may run in a Pod itself, but that Pod is not the target.
        let mut plan = Self::of(settings, &Environment { namespace, pod_name: None })?;
        for InstancePlan { identity, probes, options } in &mut plan.instances {
            // Several agents may probe one target.
            options.shared = true;
            let lease = identity.lease_name();
            ensure!(
                !probes.is_empty(),
                "the target {lease} has no probe, so that nothing tells when it has died: add one with \
                 --probe, or probes: in the file"
            );
            ensure!(
                !matches!(identity.home, Location::Pod(_)),
                "the target {lease} is a Pod: run the agent in it, beside what it runs"
            );
        }
        Ok(plan)
    }
}

impl Settings {
    /// Checks one entry of the list: settings of the agent as a whole are not allowed in it.
    fn stands_alone(self) -> Result<Self> {
        ensure!(self.instances.is_none(), "instances: cannot be nested");
        ensure!(
            self.drain_delay.is_none()
                && self.health_bind_address.is_none()
                && self.metrics_bind_address.is_none()
                && self.on_stop.is_none()
                && self.gateways.is_none()
                && self.gateway_ca_file.is_none()
                && self.gateway_token_file.is_none(),
            "drainDelay, onStop, healthBindAddress, metricsBindAddress, gateways, gatewayCaFile and gatewayTokenFile \
             hold for the whole agent: set them beside instances:"
        );
        Ok(self)
    }
}

impl InstancePlan {
    fn of(settings: &Settings, around: &Environment) -> Result<Self> {
        let (interval, gateway_names) = (settings.interval, GATEWAY_NAMES);
        Ok(Self {
            identity: settings.identity(&around.namespace, around.pod_name.as_deref())?,
            options: BeatOptions { interval, gateway_names, ..BeatOptions::default() },
            probes: settings.probes.clone().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str) -> Settings {
        serde_saphyr::from_str(file).expect("settings")
    }

    fn plan(file: &str) -> Result<Plan, String> {
        let around = Environment { namespace: "shop".to_owned(), pod_name: None };
        Plan::of(settings(file), &around).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_of_without_its_secrets() {
        let probe = "probes: [{ httpGet: { port: 80, httpHeaders: ";
        let header = format!("{probe}[{{ name: Authorization, value: hunter2 }}] }} }}]\n");
        for (file, says) in [
            (format!("{header}interval: ["), "line 2"),
            (format!("{header}registraton: greeter"), "registraton"),
            (format!("{header}interval: 1.5s"), "as in 1h30m, 30s or 1500ms"),
            (format!("{header}addresses: hunter2"), "expected"),
            (format!("{probe}hunter2 }} }}]"), "expected"),
            (format!("{probe}'hunter2\" hunter2' }} }}]"), "expected"),
            ("onStop: hunter2".to_owned(), "expected"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("agent.yaml");
            std::fs::write(&path, &file).expect("written");
            let error = read(Settings::default(), Some(&path)).expect_err(&file);
            let error = format!("{error:#} {error:?}");
            assert!(error.contains("agent.yaml cannot be used: "), "{error}");
            assert!(error.contains(says) && !error.contains("hunter2"), "{file}: {error}");
        }
    }

    #[test]
    fn what_stands_beside_the_list_holds_for_all_in_it() {
        let plan = plan(
            "
            registration: greeter
            interval: 5s
            probes: ['tcp://:80']
            drainDelay: 3s
            instances:
            - { instance: vm-1 }
            - { instance: vm-2, interval: 1s, registration: other, probes: [] }
            ",
        )
        .expect("a plan");
        let lease = |instance: &InstancePlan| instance.identity.lease_name();
        assert_eq!(
            plan.instances.iter().map(lease).collect::<Vec<_>>(),
            ["greeter.vm-1", "other.vm-2"]
        );
        let [first, second] = &plan.instances[..] else { panic!("{plan:?}") };
        assert_eq!(first.options.interval, Some(Duration::from_secs(5)));
        assert_eq!(second.options.interval, Some(Duration::from_secs(1)));
        assert_eq!((first.probes.len(), second.probes.len()), (1, 0));
        assert_eq!(plan.drain_delay, Duration::from_secs(3));
    }

    #[test]
    fn the_files_that_the_documentation_shows_make_plans() {
        let page = include_str!("../../docs/agent.md");
        let blocks: Vec<&str> = page
            .split("```yaml\n")
            .skip(1)
            .map(|rest| rest.split_once("```").expect("closed").0)
            .collect();
        let [probes, targets] = blocks[..] else { panic!("{blocks:?}") };
        assert_eq!(plan(probes).expect("a plan").instances[0].probes.len(), 6);
        let targets = Plan::for_targets(settings(targets), "shop".to_owned()).expect("a plan");
        assert_eq!(targets.instances.len(), 2);
    }

    #[test]
    fn flags_beat_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("agent.yaml");
        std::fs::write(&file, "registration: greeter\ninstance: vm-1\n").expect("written");
        let read = |flags: &str| read(settings(flags), Some(&file)).expect("read");
        let plan = Plan::of(read("instance: vm-2"), &Environment::default()).expect("a plan");
        assert_eq!(plan.instances[0].identity.lease_name(), "greeter.vm-2");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("agent.yaml");
        let fail = || format!("{:#}", read(Settings::default(), Some(&file)).expect_err("refused"));
        assert!(fail().contains("cannot read the file"), "{}", fail());
        std::fs::write(&file, "registraton: greeter").expect("written");
        assert!(fail().contains("agent.yaml") && fail().contains("registraton"), "{}", fail());
        std::fs::write(&file, "").expect("written");
        assert_eq!(
            read(Settings::default(), Some(&file)).expect("nothing said"),
            Settings::default()
        );
    }

    #[test]
    fn lists_that_make_no_sense_are_refused_with_the_place() {
        for (file, message) in [
            ("instances: []", "instances: is an empty list"),
            ("instances: [{ instance: a }]", "instances[0]: which ServiceRegistration"),
            (
                "{ registration: greeter, instances: [{ instance: a }, { instance: a }] }",
                "the instance a of shop/greeter is there twice",
            ),
            ("instances: [{ instances: [] }]", "instances[0]: instances: cannot be nested"),
            ("instances: [{ drainDelay: 1s }]", "instances[0]: drainDelay, onStop, healthBind"),
            ("instances: [{ onStop: keep }]", "instances[0]: drainDelay, onStop, healthBind"),
            (
                "instances: [{ metricsBindAddress: ':8485' }]",
                "instances[0]: drainDelay, onStop, healthBind",
            ),
        ] {
            let error = plan(file).expect_err(file);
            assert!(error.starts_with(message), "{file}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_gateway_is_told_with_the_flags() {
        for (setting, message) in [
            (
                "gateways: ['https://gateway:8443']",
                "--gateway ($BEATKEEPER_GATEWAY) needs --gateway-ca",
            ),
            ("gatewayCaFile: /x", "--gateway-ca-file ($BEATKEEPER_GATEWAY_CA_FILE) has no effect"),
            (
                "gatewayTokenFile: /x",
                "--gateway-token-file ($BEATKEEPER_GATEWAY_TOKEN_FILE) has no effect",
            ),
        ] {
            let error = plan(&format!("{{ registration: a, {setting} }}")).expect_err(setting);
            assert!(error.starts_with(message), "{error}");
        }
        let plan = plan("{ registration: a, instance: b }").expect("a plan");
        assert_eq!(plan.instances[0].options.gateway_names, GATEWAY_NAMES);
    }

    #[test]
    fn a_target_has_a_name_and_a_probe_and_is_no_pod() {
        for (file, message) in [
            ("{ registration: db }", "each target needs a name"),
            ("{ registration: db, instance: a }", "the target db.a has no probe"),
            (
                "{ registration: db, instance: a, pod: b, probes: ['tcp://h:1'] }",
                "the target db.a is a Pod",
            ),
        ] {
            let error = Plan::for_targets(settings(file), "shop".to_owned()).expect_err(file);
            assert!(error.to_string().starts_with(message), "{file}: {error}");
        }
    }
}
