//! Where a process listens.

use std::str::FromStr;

use serde::Deserialize;
use tokio::net::TcpListener;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum BindAddress {
    /// Nowhere: `0`.
    #[default]
    Off,
    /// `HOST:PORT`; without a host on all addresses, with port 0 on any free port.
    At(String),
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("give 0 for off, or HOST:PORT such as 127.0.0.1:8080 or :8080")]
pub struct ParseBindAddressError;

impl FromStr for BindAddress {
    type Err = ParseBindAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if matches!(text, "" | "0") {
            return Ok(Self::Off);
        }
        let (_, port) = text.rsplit_once(':').ok_or(ParseBindAddressError)?;
        port.parse::<u16>().map_err(|_| ParseBindAddressError)?;
        Ok(Self::At(text.to_owned()))
    }
}

impl TryFrom<String> for BindAddress {
    type Error = ParseBindAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl BindAddress {
    /// Listens at a `HOST:PORT`.
    ///
    /// # Errors
    /// The system's.
    pub async fn listen(address: &str) -> std::io::Result<TcpListener> {
        match address.strip_prefix(':') {
            // Both families where there are both.
            Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
                Ok(listener) => Ok(listener),
                Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
            },
            None => TcpListener::bind(address).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_off_or_has_a_port() {
        let at = |text: &str| BindAddress::At(text.to_owned());
        assert_eq!("0".parse::<BindAddress>().ok(), Some(BindAddress::Off));
        assert_eq!("".parse::<BindAddress>().ok(), Some(BindAddress::Off));
        for good in [":8080", "127.0.0.1:0", "[::1]:8080", "localhost:8080"] {
            assert_eq!(good.parse::<BindAddress>().ok(), Some(at(good)));
        }
        for bad in ["8080", "127.0.0.1", "127.0.0.1:http", ":65536", "127.0.0.1:"] {
            let error = bad.parse::<BindAddress>().expect_err(bad).to_string();
            assert!(error.contains(":8080"), "{error}");
        }
    }
}
