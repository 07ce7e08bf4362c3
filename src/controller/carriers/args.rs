//! The flags of the streams to gateways.

use std::path::PathBuf;

/// The flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Gateways")]
pub struct GatewayArgs {
    /// A folder with tls.crt, tls.key and ca.crt in PEM format: what this replica shows to gateways, and the CA that it
    /// trusts. It is read again for each stream. Without it the operator uses no gateways. Needs --leader-elect.
    #[arg(long, env = "BEATKEEPER_GATEWAY_CERT_DIR", value_name = "FOLDER")]
    pub gateway_cert_dir: Option<PathBuf>,

    /// The DNS name in the certificates of gateways.
    #[arg(
        long,
        env = "BEATKEEPER_GATEWAY_SERVER_NAME",
        value_name = "NAME",
        default_value = "beatkeeper-gateway"
    )]
    pub gateway_server_name: String,
}

/// How this replica reaches gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// The folder of the certificates.
    pub certificates: PathBuf,
    /// The DNS name in the certificates of gateways.
    pub server_name: String,
}

impl GatewayArgs {
    /// The settings that these flags ask for; None without gateways.
    pub(in crate::controller) fn settings(self) -> Option<GatewaySettings> {
        let Self { gateway_cert_dir, gateway_server_name: server_name } = self;
        gateway_cert_dir.map(|certificates| GatewaySettings { certificates, server_name })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::controller::settings::{Args, Settings, SettingsError};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn settings(flags: &[&str]) -> Result<Settings, SettingsError> {
        let line = std::iter::once("beatkeeper").chain(flags.iter().copied());
        Settings::try_from(Line::try_parse_from(line).expect("a command line").args)
    }

    #[test]
    fn without_a_folder_of_certificates_there_are_no_gateways() {
        assert_eq!(settings(&[]).expect("valid").gateways, None);
        let gateways = settings(&["--gateway-cert-dir=/certs", "--leader-elect"]).expect("valid");
        assert_eq!(gateways.gateways.expect("gateways").server_name, "beatkeeper-gateway");
    }

    #[test]
    fn gateways_need_an_election_and_one_scope() {
        let folder = "--gateway-cert-dir=/certs";
        let error = settings(&[folder]).expect_err("no election");
        assert_eq!(error, SettingsError::NoElectionForGateways);
        let flags = [folder, "--leader-elect", "--namespace=a,b"];
        assert_eq!(settings(&flags).expect_err("two"), SettingsError::SeveralScopes(2));
        assert!(settings(&[folder, "--leader-elect", "--namespace=a"]).is_ok());
    }
}
