//! Where this process runs: the Pod, as the downward API tells it, or else this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use beatkeeper_client::names::hostname;

use crate::bind_address::BindAddress;

/// The place of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The name of the Pod, or of the host.
    pub(super) name: String,
    /// The uid of the Pod, or a number that this process drew.
    pub(super) uid: String,
    /// Whether the uid is that of a Pod, which then owns the gateway's Lease.
    pub(super) in_pod: bool,
    /// The address of the Pod.
    pub(super) address: Option<IpAddr>,
    /// The namespace of the operator, and of the gateway's Lease.
    pub(super) namespace: String,
}

/// A variable of the environment has a value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("POD_IP is {0:?}, which is no IP address; take it from status.podIP by the downward API")]
pub struct NoAddress(String);

impl Place {
    /// Reads the environment. `namespace` is used if POD_NAMESPACE is not set.
    ///
    /// # Errors
    /// [`NoAddress`].
    pub(super) fn of(
        variable: impl Fn(&str) -> Option<String>,
        namespace: &str,
    ) -> Result<Self, NoAddress> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let address = given("POD_IP").map(|text| text.parse().map_err(|_| NoAddress(text)));
        let uid = given("POD_UID");
        Ok(Self {
            name: given("POD_NAME").unwrap_or_else(hostname),
            in_pod: uid.is_some(),
            uid: uid.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..))),
            address: address.transpose()?,
            namespace: given("POD_NAMESPACE").unwrap_or_else(|| namespace.to_owned()),
        })
    }

    /// Where others reach what listens at `bound`.
    pub(super) fn published(&self, bound: SocketAddr) -> SocketAddr {
        match self.address {
            Some(address) => SocketAddr::new(address, bound.port()),
            None if !bound.ip().is_unspecified() => bound,
            None if bound.is_ipv4() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port()),
            None => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), bound.port()),
        }
    }
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The gateway needs this port.
    #[error("--{0} cannot be off; give HOST:PORT, or :PORT for all addresses")]
    Off(&'static str),
    /// The host is unknown.
    #[error("--{flag}={address}: cannot find the address of the host: {cause}")]
    Unknown {
        /// The flag.
        flag: &'static str,
        /// Its value.
        address: String,
        /// Why.
        cause: std::io::Error,
    },
}

/// The address that a flag names.
///
/// # Errors
/// [`AddressError`].
pub(super) async fn socket(
    flag: &'static str,
    address: &BindAddress,
) -> Result<SocketAddr, AddressError> {
    let BindAddress::At(address) = address else { return Err(AddressError::Off(flag)) };
    let text = match address.strip_prefix(':') {
        // An address for both families, where the host has both.
        Some(port) if has_ipv6() => format!("[::]:{port}"),
        Some(port) => format!("0.0.0.0:{port}"),
        None => address.clone(),
    };
    let failed = |cause| AddressError::Unknown { flag, address: address.clone(), cause };
    let mut found = tokio::net::lookup_host(text).await.map_err(failed)?;
    found.next().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
}

fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &'static [(&str, &str)]) -> Result<Place, NoAddress> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Place::of(variable, "default")
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_gateway_in_a_pod_is_reached_at_the_address_of_the_pod() {
        let variables = &[("POD_NAME", "g-0"), ("POD_UID", "7"), ("POD_IP", "fd00::7")];
        let place = place(variables).expect("valid");
        assert_eq!((place.name.as_str(), place.uid.as_str(), place.in_pod), ("g-0", "7", true));
        assert_eq!(place.namespace, "default");
        assert_eq!(place.published(at("[::]:8444")), at("[fd00::7]:8444"));
    }

    #[test]
    fn outside_a_pod_it_is_reached_where_it_listens() {
        let place = place(&[("POD_NAMESPACE", "beats"), ("POD_UID", "")]).expect("valid");
        assert_eq!((place.namespace.as_str(), place.in_pod), ("beats", false));
        assert!(!place.uid.is_empty());
        assert_eq!(place.published(at("10.0.0.7:8444")), at("10.0.0.7:8444"));
        assert_eq!(place.published(at("0.0.0.0:8444")), at("127.0.0.1:8444"));
        assert_eq!(place.published(at("[::]:8444")), at("[::1]:8444"));
    }

    #[test]
    fn an_address_of_the_pod_that_is_none_is_refused() {
        let error = place(&[("POD_IP", "pod")]).expect_err("refused").to_string();
        assert!(error.contains("POD_IP is \"pod\""), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_the_gateway_needs_cannot_be_off() {
        let error = socket("bind-address", &BindAddress::Off).await.expect_err("refused");
        assert!(error.to_string().starts_with("--bind-address cannot be off"), "{error}");
        let address: BindAddress = "127.0.0.1:8443".parse().expect("valid");
        assert_eq!(socket("bind-address", &address).await.expect("one"), at("127.0.0.1:8443"));
    }
}
