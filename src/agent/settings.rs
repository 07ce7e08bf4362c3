//! The settings of an instance. Each one has the same name as a flag, an environment variable, and a key of
//! the file.

mod values;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use beatkeeper_api::duration;
use beatkeeper_client::{
    gateway::GatewayUrl,
    lease::{Identity, Location},
    names::{self, NameError, hostname},
};
use serde::Deserialize;

use super::probe::Probe;
use crate::bind_address::BindAddress;
use values::{
    duration_text, gateway_url, gateways, health_address, interval, interval_text, metrics_address,
    pair, pairs, probes,
};

/// The settings of one instance, or of all instances. Each of them may be absent.
///
/// The one source of the flags, the variables, the keys of the file, and the page that lists them.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Name of the ServiceRegistration to beat for.
    #[arg(long, env = "BEATKEEPER_REGISTRATION", value_name = "NAME")]
    pub registration: Option<String>,

    /// Namespace of the ServiceRegistration [default: that of the kubeconfig's context, or of the agent's Pod].
    #[arg(long, short, env = "BEATKEEPER_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Name of the instance [default: the Pod's name, or else the host name].
    #[arg(long, env = "BEATKEEPER_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,

    /// The Pod that the instance runs in: its address is published, and the Lease is deleted with it. Empty
    /// for an instance outside the cluster [default: $POD_NAME].
    #[arg(long, env = "BEATKEEPER_POD", value_name = "NAME")]
    pub pod: Option<String>,

    /// Address of an instance outside the cluster that the registration does not declare. May be repeated, or
    /// separated by commas; the operator must allow its range.
    #[arg(
        id = "addresses",
        long = "address",
        env = "BEATKEEPER_ADDRESS",
        value_name = "IP",
        value_delimiter = ','
    )]
    pub addresses: Option<Vec<IpAddr>>,

    /// Version of the app in the instance, for information only.
    #[arg(long, env = "BEATKEEPER_APP_VERSION", value_name = "TEXT")]
    pub app_version: Option<String>,

    /// Other data about the instance, for information only. May be repeated, or separated by commas. In the file: a
    /// map.
    #[arg(
        long,
        env = "BEATKEEPER_METADATA",
        value_name = "KEY=VALUE",
        value_delimiter = ',',
        value_parser = pair
    )]
    #[serde(deserialize_with = "pairs")]
    pub metadata: Option<Vec<(String, String)>>,

    /// Beat more often than the registration asks for, such as 5s or 500ms.
    #[arg(long, env = "BEATKEEPER_INTERVAL", value_name = "DURATION", value_parser = interval)]
    #[serde(deserialize_with = "interval_text")]
    pub interval: Option<Duration>,

    /// Probe the health of the process, as the kubelet does: http://:8080/healthz, https://:8443/, tcp://:5432,
    /// grpc://:9000/service or exec:COMMAND. May be repeated: all probes must succeed. In the file, the kubelet's
    /// fields are allowed, too, such as periodSeconds and the thresholds.
    #[arg(id = "probes", long = "probe", env = "BEATKEEPER_PROBE", value_name = "PROBE")]
    #[serde(deserialize_with = "probes")]
    pub probes: Option<Vec<Probe>>,

    /// How long to drain before the end, so that routers and proxies see it, such as 5s; 0s: do not drain [default:
    /// 0s].
    #[arg(long, env = "BEATKEEPER_DRAIN_DELAY", value_name = "DURATION", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration_text")]
    pub drain_delay: Option<Duration>,

    /// What to do with the Lease when `run` is stopped: deregister, so that the instance leaves at once, or
    /// keep, so that an agent that starts within the ttl continues with it. SIGUSR1 keeps it once [default:
    /// deregister].
    #[arg(long, env = "BEATKEEPER_ON_STOP", value_name = "WHAT")]
    pub on_stop: Option<OnStop>,

    /// Serve /livez, /readyz and /published here, over plain HTTP: 127.0.0.1:8484, or :8484 for all addresses. Ready:
    /// a first beat of each instance was accepted. Published: the operator publishes each instance [default:
    /// nowhere].
    #[arg(long, env = "BEATKEEPER_HEALTH_BIND_ADDRESS", value_name = "ADDRESS")]
    #[serde(deserialize_with = "health_address")]
    pub health_bind_address: Option<BindAddress>,

    /// Serve /metrics for Prometheus here, over plain HTTP and without authentication: 127.0.0.1:8485 for a
    /// Prometheus or a collector on this machine, or :8485 for all addresses. It may be the address of
    /// --health-bind-address [default: nowhere].
    #[arg(long, env = "BEATKEEPER_METRICS_BIND_ADDRESS", value_name = "ADDRESS")]
    #[serde(deserialize_with = "metrics_address")]
    pub metrics_bind_address: Option<BindAddress>,

    /// Beat through this gateway while the registration says carrier: Gateway: https://HOST:PORT. All addresses of the
    /// host are tried. May be repeated, or separated by commas. Needs --gateway-ca-file [default: none; then the agent
    /// renews the Leases, whatever the registration says].
    #[arg(
        id = "gateways",
        long = "gateway",
        env = "BEATKEEPER_GATEWAY",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = gateway_url
    )]
    #[serde(deserialize_with = "gateways")]
    pub gateways: Option<Vec<GatewayUrl>>,

    /// File with the CA of the gateways, as PEM. No other CA is trusted. The agent reads it again when it changes.
    #[arg(long, env = "BEATKEEPER_GATEWAY_CA_FILE", value_name = "FILE")]
    pub gateway_ca_file: Option<PathBuf>,

    /// File with a token of the audience beatkeeper for the gateways. The agent reads it again when it changes [default:
    /// /var/run/secrets/beatkeeper/token].
    #[arg(long, env = "BEATKEEPER_GATEWAY_TOKEN_FILE", value_name = "FILE")]
    pub gateway_token_file: Option<PathBuf>,

    /// Many instances in one agent: a list of the same settings. A setting outside the list applies to all
    /// entries.
    #[arg(skip)]
    pub instances: Option<Vec<Settings>>,
}

/// What happens to a Lease at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnStop {
    /// It is deleted, and the instance leaves at once.
    #[default]
    Deregister,
    /// It stays, and the instance stays published until its ttl has passed.
    Keep,
}

/// Why an instance cannot be made from the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No registration is named.
    #[error(
        "which ServiceRegistration to beat for is not said: set --registration, or registration: in the file"
    )]
    NoRegistration,
    /// Both a Pod and addresses are given.
    #[error(
        "a Pod's address is known to the API server: leave out --address, or say --pod '' for an instance \
         outside the cluster"
    )]
    AddressOfPod,
    /// No object can have this name.
    #[error("{0}; say it with --registration")]
    RegistrationName(NameError),
    /// No Lease can have this name.
    #[error("{0}; say it with --instance")]
    InstanceName(NameError),
    /// No annotation can have this key.
    #[error("{0}")]
    MetadataKey(NameError),
}

impl Settings {
    /// Merges two sets of settings: a value that is missing here is taken from `base`.
    pub fn or(self, base: &Self) -> Self {
        macro_rules! first { ($($field:ident)*) => { Self { $($field: self.$field.or_else(|| base.$field.clone()),)* } } }
        first! {
            registration namespace instance pod addresses app_version metadata interval probes drain_delay
            on_stop health_bind_address metrics_bind_address gateways gateway_ca_file gateway_token_file
            instances
        }
    }

    /// Returns the identity that these settings make. `default_namespace` is the configuration's; `pod_name`
    /// is $POD_NAME.
    ///
    /// # Errors
    /// [`SettingsError`], which says what to change.
    pub fn identity(
        &self,
        default_namespace: &str,
        pod_name: Option<&str>,
    ) -> Result<Identity, SettingsError> {
        let registration = self.registration.clone().ok_or(SettingsError::NoRegistration)?;
        names::registration(&registration).map_err(SettingsError::RegistrationName)?;
        let pod = self.pod.clone().or_else(|| pod_name.map(str::to_owned));
        let pod = pod.filter(|name| !name.is_empty());
        let instance = self.instance.clone().or_else(|| pod.clone()).unwrap_or_else(hostname);
        names::instance(&instance).map_err(SettingsError::InstanceName)?;
        let addresses = self.addresses.clone().unwrap_or_default();
        let home = match pod {
            Some(_) if !addresses.is_empty() => return Err(SettingsError::AddressOfPod),
            Some(pod) => Location::Pod(pod),
            None => Location::Outside(addresses),
        };
        let metadata: BTreeMap<_, _> = self.metadata.iter().flatten().cloned().collect();
        metadata
            .keys()
            .try_for_each(|key| names::metadata_key(key))
            .map_err(SettingsError::MetadataKey)?;
        Ok(Identity {
            namespace: self.namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
            registration,
            instance,
            home,
            version: self.app_version.clone(),
            metadata,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(flags: &[&str]) -> Result<Settings, String> {
        let line = ["agent", "--registration", "greeter"].iter().chain(flags);
        Line::try_parse_from(line).map(|line| line.settings).map_err(|error| error.to_string())
    }

    fn identity(flags: &[&str], pod_name: Option<&str>) -> Result<Identity, SettingsError> {
        parse(flags).expect("valid flags").identity("shop", pod_name)
    }

    #[test]
    fn inside_a_pod_the_instance_is_the_pod() {
        let identity = identity(&[], Some("greeter-7f9c")).expect("an identity");
        assert_eq!(identity.instance, "greeter-7f9c");
        assert_eq!(identity.home, Location::Pod("greeter-7f9c".to_owned()));
        assert_eq!((&*identity.namespace, &*identity.registration), ("shop", "greeter"));
    }

    #[test]
    fn outside_the_cluster_the_instance_is_the_host() {
        let identity = identity(&["--address", "192.0.2.1,::1", "--address", "192.0.2.2"], None);
        let identity = identity.expect("an identity");
        assert_eq!(identity.instance, hostname());
        let addresses = ["192.0.2.1", "::1", "192.0.2.2"].map(|ip| ip.parse().expect("an IP"));
        assert_eq!(identity.home, Location::Outside(addresses.to_vec()));
    }

    #[test]
    fn an_empty_pod_means_outside_even_inside_a_pod() {
        let flags = ["--pod", "", "--instance", "vm-1", "--namespace", "other"];
        let identity = identity(&flags, Some("p")).expect("an identity");
        assert_eq!(identity.home, Location::Outside(vec![]));
        assert_eq!((&*identity.instance, &*identity.namespace), ("vm-1", "other"));
    }

    #[test]
    fn a_pod_with_addresses_is_a_contradiction() {
        let error = identity(&["--address", "192.0.2.1"], Some("p"));
        assert_eq!(error, Err(SettingsError::AddressOfPod));
    }

    #[test]
    fn names_that_no_object_can_have_are_refused_with_an_example() {
        for name in ["VM_1", "a..b", "-a", "a.", &"x".repeat(190)] {
            let error = identity(&[&format!("--instance={name}")], None).expect_err(name);
            assert!(error.to_string().ends_with("such as vm-1; say it with --instance"), "{error}");
        }
        assert!(identity(&["--instance", "vm-1.example.com"], None).is_ok());
        let dotted = Settings { registration: Some("a.b".to_owned()), ..Settings::default() };
        let error = dotted.identity("shop", None).expect_err("refused").to_string();
        assert!(error.contains("must be a DNS label"), "{error}");
        let error = identity(&["--metadata", "my shelf=7"], None).expect_err("refused");
        assert!(error.to_string().contains("cannot be a key of metadata"), "{error}");
        let error = Settings::default().identity("shop", None);
        assert_eq!(error, Err(SettingsError::NoRegistration));
    }

    #[test]
    fn durations_are_written_as_everywhere_else() {
        let settings = parse(&["--interval", "1s500ms", "--drain-delay", "0s"]).expect("valid");
        assert_eq!(settings.interval, Some(Duration::from_millis(1500)));
        assert_eq!(settings.drain_delay, Some(Duration::ZERO));
        for (text, message) in [("1.5s", "as in 1h30m, 30s or 1500ms"), ("50ms", "100ms or more")] {
            let error = parse(&["--interval", text]).expect_err(text);
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_file_and_flags_say_the_same() {
        let flags = parse(&[
            "--namespace=shop",
            "--instance=vm-1",
            "--pod=",
            "--address=192.0.2.1,192.0.2.2",
            "--app-version=1.4.2",
            "--metadata=rack=b,shelf=7",
            "--interval=5s",
            "--probe=http://:8080/healthz",
            "--probe=tcp://:5432",
            "--drain-delay=2s",
            "--on-stop=keep",
            "--health-bind-address=127.0.0.1:8484",
            "--metrics-bind-address=127.0.0.1:8485",
            "--gateway=https://a:8443,https://b:8443",
            "--gateway-ca-file=/etc/ca.crt",
            "--gateway-token-file=/etc/token",
        ]);
        let file = "
            registration: greeter
            namespace: shop
            instance: vm-1
            pod: ''
            addresses: [192.0.2.1, 192.0.2.2]
            appVersion: 1.4.2
            metadata: { shelf: '7', rack: b }
            interval: 5s
            probes:
            - httpGet: { path: /healthz, port: 8080 }
            - tcp://:5432
            drainDelay: 2s
            onStop: keep
            healthBindAddress: 127.0.0.1:8484
            metricsBindAddress: 127.0.0.1:8485
            gateways: [https://a:8443, https://b:8443]
            gatewayCaFile: /etc/ca.crt
            gatewayTokenFile: /etc/token
        ";
        assert_eq!(
            serde_saphyr::from_str::<Settings>(file).expect("a file"),
            flags.expect("flags")
        );
    }

    #[test]
    fn each_flag_has_a_variable() {
        for arg in Line::command().get_arguments() {
            let name = arg.get_long().unwrap_or_default().replace('-', "_").to_uppercase();
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(variable, Some(format!("BEATKEEPER_{name}")));
        }
    }

    #[test]
    fn what_a_file_gets_wrong_is_named() {
        for (file, message) in [
            ("registraton: greeter", "registraton"),
            ("interval: 1.5s", "as in 1h30m, 30s or 1500ms"),
            ("probes: ['ftp://:21']", "is not a probe"),
            ("probes: [{ tcpSocket: { port: 99999 } }]", "port"),
            ("addresses: [example.com]", "IP address"),
            ("metricsBindAddress: '8485'", "metricsBindAddress: give 0 for off, or HOST:PORT"),
            ("gateways: [http://a]", "gateways: write it as https://HOST:PORT"),
            ("healthBindAddress: ':x'", "healthBindAddress: give 0 for off, or HOST:PORT"),
        ] {
            let error = serde_saphyr::from_str::<Settings>(file).expect_err(file).to_string();
            assert!(error.contains(message), "{file}: {error}");
        }
    }
}
