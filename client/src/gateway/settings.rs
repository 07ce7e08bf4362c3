//! Where gateways are, and what they and this process show to each other.

use std::{fmt, path::PathBuf, str::FromStr};

use http::{Uri, uri::Scheme};

/// Environment variable with the URLs of gateways, separated by commas.
pub const GATEWAY_VARIABLE: &str = "BEATKEEPER_GATEWAY";
/// Environment variable with the file of the CA that has signed the certificates of gateways.
pub const GATEWAY_CA_FILE_VARIABLE: &str = "BEATKEEPER_GATEWAY_CA_FILE";
/// Environment variable with the file of the token that is sent to gateways.
pub const GATEWAY_TOKEN_FILE_VARIABLE: &str = "BEATKEEPER_GATEWAY_TOKEN_FILE";
/// The file of the token if no other is named: where a Pod mounts a projected token.
pub const TOKEN_FILE: &str = "/var/run/secrets/beatkeeper/token";

/// How to reach gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// The URLs of gateways; one at least. All addresses behind each name are tried.
    pub urls: Vec<GatewayUrl>,
    /// The certificates of the CA of the gateways, as PEM. No other CA is trusted. The file is read again when it changes.
    pub ca_file: PathBuf,
    /// A token of the audience `beatkeeper`. The file is read again when it changes.
    pub token_file: PathBuf,
    /// What messages call these settings.
    pub names: GatewayNames,
}

/// What the user of a program calls its settings of gateways, for messages: a program with flags names its flags. By default
/// these are the methods of [`Builder`](crate::Builder), and the environment variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayNames {
    /// The URLs.
    pub gateway: &'static str,
    /// The file of the CA.
    pub ca_file: &'static str,
    /// The file of the token.
    pub token_file: &'static str,
}

impl Default for GatewayNames {
    fn default() -> Self {
        Self {
            gateway: "gateway ($BEATKEEPER_GATEWAY)",
            ca_file: "gateway_ca_file ($BEATKEEPER_GATEWAY_CA_FILE)",
            token_file: "gateway_token_file ($BEATKEEPER_GATEWAY_TOKEN_FILE)",
        }
    }
}

/// The URL of a gateway: `https://HOST`, or with `:PORT`. The port is 443 by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl(Uri);

/// A text is no URL of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as https://HOST:PORT, such as https://beatkeeper-gateway.beatkeeper:443")]
pub struct GatewayUrlError;

impl GatewayUrl {
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for GatewayUrl {
    type Err = GatewayUrlError;

    fn from_str(text: &str) -> Result<Self, GatewayUrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| GatewayUrlError)?;
        let plain = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
        let host = uri.host().is_some_and(|host| !host.is_empty());
        // A password would be of no use: the token says who beats.
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let good = uri.scheme() == Some(&Scheme::HTTPS) && host && plain && !user;
        if good { Ok(Self(uri)) } else { Err(GatewayUrlError) }
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0.authority().map_or("", |authority| authority.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_settings_end_with_their_variables() {
        let GatewayNames { gateway, ca_file, token_file } = GatewayNames::default();
        for (name, variable) in [
            (gateway, GATEWAY_VARIABLE),
            (ca_file, GATEWAY_CA_FILE_VARIABLE),
            (token_file, GATEWAY_TOKEN_FILE_VARIABLE),
        ] {
            assert!(name.ends_with(&format!(" (${variable})")), "{name}");
        }
    }

    #[test]
    fn a_url_of_a_gateway_is_https_with_a_host_and_nothing_else() {
        for url in ["https://gateway.shop:8443", "https://gateway/", "https://[2001:db8::1]:8443"] {
            let read: GatewayUrl = url.parse().expect(url);
            assert_eq!(read.to_string(), url.trim_end_matches('/'));
        }
        for url in [
            "",
            "gateway:8443",
            "http://gateway:8443",
            "https://",
            "https://gateway/beats",
            "https://gateway?a=b",
            "https://user:hunter2@gateway",
            "https://gate way",
        ] {
            let error = url.parse::<GatewayUrl>().expect_err(url).to_string();
            assert!(error.starts_with("write it as https://HOST:PORT"), "{error}");
            assert!(!error.contains("hunter2"));
        }
    }
}
