//! How to ask the leader.

use std::str::FromStr;

use beatkeeper_core::vocabulary::key::Key;
use clap::Args;

use crate::gather::election::Election;

/// How to ask the leader.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What the leader knows")]
pub struct LeaderFlags {
    /// Argue from API objects alone, and do not ask the leader.
    #[arg(long, conflicts_with_all = ["operator_address", "token_of"])]
    pub without_leader: bool,
    /// The Lease by which the operator's replicas elect their leader. Default: beatkeeper, in any namespace.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub election: Option<Election>,
    /// Where the leader answers, such as 127.0.0.1:8082. Default: in its Pod, which kubectl port-forward reaches.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub operator_address: Option<String>,
    /// The ServiceAccount as which to ask; it must have the right to get the registration. Without a namespace, it is that
    /// of the registration. Default: the one that the chart makes beside the operator.
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub token_of: Option<Account>,
}

/// A ServiceAccount, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace; `None` for that of the registration.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// The text names no ServiceAccount.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names no ServiceAccount; write [NAMESPACE/]NAME, such as beatkeeper/beatkeeper-explain"
)]
pub struct NoAccount(String);

impl FromStr for Account {
    type Err = NoAccount;

    fn from_str(text: &str) -> Result<Self, NoAccount> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace == Some("") {
            return Err(NoAccount(text.to_owned()));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl LeaderFlags {
    /// The ServiceAccount as which to ask.
    pub fn account(&self, election: &Key, registration: &Key) -> Key {
        match &self.token_of {
            Some(Account { namespace, name }) => {
                Key::new(namespace.as_ref().unwrap_or(&registration.namespace), name)
            }
            None => account_of(election),
        }
    }
}

/// The ServiceAccount that the chart makes for readers, beside the operator with this election.
pub fn account_of(election: &Key) -> Key {
    Key::new(&election.namespace, format!("{}-explain", election.name))
}

/// The text is no address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address; write HOST:PORT, such as 127.0.0.1:8082")]
pub struct NoAddress(String);

/// An address with a port.
///
/// # Errors
/// [`NoAddress`].
pub fn host_and_port(text: &str) -> Result<String, NoAddress> {
    let authority: Option<http::uri::Authority> = text.parse().ok();
    let is_one = authority.is_some_and(|it| it.port_u16().is_some() && !text.contains('@'));
    if is_one { Ok(text.to_owned()) } else { Err(NoAddress(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_that_of_the_chart_unless_another_is_named() {
        let (election, registration) = (Key::new("system", "bk"), Key::new("shop", "greeter"));
        let account = |text: Option<&str>| {
            let token_of = text.map(|text| text.parse().unwrap());
            LeaderFlags { token_of, ..LeaderFlags::default() }.account(&election, &registration)
        };
        assert_eq!(account(None), Key::new("system", "bk-explain"));
        assert_eq!(account(Some("deployer")), Key::new("shop", "deployer"));
        assert_eq!(account(Some("ci/deployer")), Key::new("ci", "deployer"));
        for wrong in ["", "/", "a/", "/a", "a/b/c"] {
            assert!(wrong.parse::<Account>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in ["127.0.0.1:8082", "localhost:1", "[::1]:8082"] {
            assert!(host_and_port(right).is_ok(), "{right}");
        }
        for wrong in ["", "127.0.0.1", "https://a:1", "a:1/b", "u@a:1", "a:x"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
