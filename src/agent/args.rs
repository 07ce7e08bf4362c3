//! The flags of `beatkeeper agent`.

use std::net::IpAddr;
use std::time::Duration;

use beatkeeper_api::{duration, heartbeat::INSTANCE_NAME_MAX};

use super::hostname::hostname;
use super::lease::{Home, Identity};
use super::schedule::INTERVAL_MIN;

/// Which instance beats, and for what.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the ServiceRegistration to beat for.
    #[arg(long, env = "BEATKEEPER_REGISTRATION", value_name = "NAME", value_parser = registration)]
    registration: String,

    /// Namespace of the ServiceRegistration [default: that of the kubeconfig's context, or of the
    /// Pod we run in].
    #[arg(long, short, env = "BEATKEEPER_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,

    /// Name of the instance [default: the Pod's name, or else the host name].
    #[arg(long, env = "BEATKEEPER_INSTANCE", value_name = "NAME")]
    instance: Option<String>,

    /// The Pod that the instance lives in: its address is published, and the Lease goes with it.
    /// Empty for an instance outside the cluster [default: $POD_NAME].
    #[arg(long, env = "BEATKEEPER_POD", value_name = "NAME")]
    pod: Option<String>,

    /// Address of an instance outside the cluster that the registration does not declare. May be
    /// repeated, or separated by commas; the operator must allow its range.
    #[arg(long = "address", env = "BEATKEEPER_ADDRESS", value_name = "IP", value_delimiter = ',')]
    addresses: Vec<IpAddr>,

    /// Beat more often than the registration asks for, such as 5s or 500ms.
    #[arg(long, env = "BEATKEEPER_INTERVAL", value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,

    /// Print every beat.
    #[arg(long, short, env = "BEATKEEPER_VERBOSE")]
    verbose: bool,
}

/// Why the flags make no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Both a Pod and addresses.
    #[error(
        "a Pod's address is known to the API server: leave out --address, \
         or say --pod '' for an instance outside the cluster"
    )]
    AddressOfPod,
    /// No Lease can have this name.
    #[error(
        "{0:?} cannot name an instance: choose an --instance of at most {INSTANCE_NAME_MAX} \
         lower-case letters, digits, '-' and '.', such as vm-1"
    )]
    InstanceName(String),
}

impl Args {
    /// The interval that was asked for.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Whether to print every beat.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// Who this makes us. `default_namespace` is the configuration's, `pod_name` is $POD_NAME.
    ///
    /// # Errors
    /// [`ArgsError`], with what to change.
    pub fn identity(
        &self,
        default_namespace: &str,
        pod_name: Option<String>,
    ) -> Result<Identity, ArgsError> {
        let pod = self.pod.clone().or(pod_name).filter(|name| !name.is_empty());
        let instance = self.instance.clone().or_else(|| pod.clone()).unwrap_or_else(hostname);
        if !is_subdomain(&instance) || instance.len() > INSTANCE_NAME_MAX {
            return Err(ArgsError::InstanceName(instance));
        }
        let home = match pod {
            Some(_) if !self.addresses.is_empty() => return Err(ArgsError::AddressOfPod),
            Some(pod) => Home::Pod(pod),
            None => Home::Outside(self.addresses.clone()),
        };
        Ok(Identity {
            namespace: self.namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
            registration: self.registration.clone(),
            instance,
            home,
        })
    }
}

fn registration(text: &str) -> Result<String, String> {
    if is_label(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a DNS label: at most 63 lower-case letters, digits and '-', such as greeter"
            .to_owned())
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < INTERVAL_MIN {
        return Err(format!("must be {} or more", duration::format(INTERVAL_MIN)));
    }
    Ok(interval)
}

/// RFC 1123, as Kubernetes takes it.
fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.as_bytes().first().is_some_and(alphanumeric)
        && text.as_bytes().last().is_some_and(alphanumeric)
        && text.bytes().all(|byte| alphanumeric(&byte) || byte == b'-')
}

/// Kubernetes bounds a subdomain as a whole, not its labels.
fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|label| {
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.as_bytes().first().is_some_and(alphanumeric)
            && label.as_bytes().last().is_some_and(alphanumeric)
            && label.bytes().all(|byte| alphanumeric(&byte) || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, String> {
        let line = ["agent", "--registration", "greeter"].iter().chain(flags);
        Line::try_parse_from(line).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn identity(flags: &[&str], pod_name: Option<&str>) -> Result<Identity, ArgsError> {
        parse(flags).expect("valid flags").identity("shop", pod_name.map(str::to_owned))
    }

    #[test]
    fn inside_a_pod_the_instance_is_the_pod() {
        let identity = identity(&[], Some("greeter-7f9c")).expect("an identity");
        assert_eq!(identity.instance, "greeter-7f9c");
        assert_eq!(identity.home, Home::Pod("greeter-7f9c".to_owned()));
        assert_eq!((&*identity.namespace, &*identity.registration), ("shop", "greeter"));
    }

    #[test]
    fn outside_the_cluster_the_instance_is_the_host() {
        let identity = identity(&["--address", "192.0.2.1,::1", "--address", "192.0.2.2"], None);
        let identity = identity.expect("an identity");
        assert_eq!(identity.instance, hostname());
        let addresses = ["192.0.2.1", "::1", "192.0.2.2"].map(|ip| ip.parse().expect("an IP"));
        assert_eq!(identity.home, Home::Outside(addresses.to_vec()));
    }

    #[test]
    fn an_empty_pod_means_outside_even_inside_a_pod() {
        let flags = ["--pod", "", "--instance", "vm-1", "--namespace", "other"];
        let identity = identity(&flags, Some("p")).expect("an identity");
        assert_eq!(identity.home, Home::Outside(vec![]));
        assert_eq!((&*identity.instance, &*identity.namespace), ("vm-1", "other"));
    }

    #[test]
    fn a_pod_with_addresses_is_a_contradiction() {
        let error = identity(&["--address", "192.0.2.1"], Some("p"));
        assert_eq!(error, Err(ArgsError::AddressOfPod));
    }

    #[test]
    fn a_name_that_no_lease_can_have_is_refused_with_an_example() {
        for name in ["VM_1", "a..b", "-a", "a.", &"x".repeat(190)] {
            let error = identity(&[&format!("--instance={name}")], None).expect_err(name);
            assert!(error.to_string().ends_with("such as vm-1"), "{error}");
        }
        assert!(identity(&["--instance", "vm-1.example.com"], None).is_ok());
        let error = Line::try_parse_from(["agent", "--registration", "a.b"]);
        assert!(error.err().expect("refused").to_string().contains("must be a DNS label"));
    }

    #[test]
    fn intervals_are_written_as_everywhere_else() {
        assert_eq!(
            parse(&["--interval", "1s500ms"]).expect("valid").interval(),
            Some(Duration::from_millis(1500))
        );
        for (text, message) in [("1.5s", "as in 1h30m, 30s or 1500ms"), ("50ms", "100ms or more")] {
            let error = parse(&["--interval", text]).expect_err(text);
            assert!(error.contains(message), "{error}");
        }
    }
}
