//! Which addresses may be published (P5).
//!
//! Users with the `edit` role may write registrations and Leases, but not EndpointSlices, because slices can direct
//! the clients of a Service to any address (CVE-2021-25740). So an address that does not come from a Pod is published
//! only if it is in a range that the operator's administrator has given to the namespace.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// A set of addresses. Each decision looks up thousands of them, so the hash function is a fast one. It still has a
/// random key.
pub type AddressSet = hashbrown::HashSet<IpAddr>;

/// An address as written in a Lease or a spec. The text of a Lease is parsed once, because each decision looks at the
/// addresses of thousands of Leases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Named {
    /// An IP address.
    Address(IpAddr),
    /// A text that is not an IP address.
    Other(Box<str>),
}

impl Named {
    /// The address, if the text is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Other(_) => None,
        }
    }
}

impl From<&str> for Named {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Other(text.into()), Self::Address)
    }
}

/// The ranges in which outside instances may have their addresses, by namespace; and the networks of the cluster, in
/// which they may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutsideRanges {
    by_namespace: BTreeMap<String, Vec<IpNet>>,
    /// The networks of the cluster's Pods, Services and Nodes.
    cluster: Vec<IpNet>,
}

/// One range for one namespace, written `shop=192.0.2.0/24`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideRange {
    /// The namespace.
    pub namespace: String,
    /// The range.
    pub range: IpNet,
}

/// Why a text is not a range for a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not NAMESPACE=CIDR; write for example shop=192.0.2.0/24 or shop=2001:db8::/64")]
pub struct ParseRangeError(String);

impl FromStr for OutsideRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let error = || ParseRangeError(text.to_owned());
        let (namespace, range) = text.split_once('=').ok_or_else(error)?;
        if namespace.is_empty() {
            return Err(error());
        }
        let range = range.parse().map_err(|_| error())?;
        Ok(Self { namespace: namespace.to_owned(), range })
    }
}

impl FromIterator<OutsideRange> for OutsideRanges {
    fn from_iter<T: IntoIterator<Item = OutsideRange>>(ranges: T) -> Self {
        let mut all = Self::default();
        for OutsideRange { namespace, range } in ranges {
            all.by_namespace.entry(namespace).or_default().push(range);
        }
        all
    }
}

impl OutsideRanges {
    /// The ranges of a namespace.
    pub fn of(&self, namespace: &str) -> &[IpNet] {
        self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// The same ranges without these networks. Each address in one of them belongs to the cluster, even if no object
    /// has it.
    #[must_use]
    pub fn without(self, cluster: Vec<IpNet>) -> Self {
        Self { cluster, ..self }
    }

    /// The network of the cluster that contains an address, if there is one.
    pub fn cluster_network(&self, address: IpAddr) -> Option<IpNet> {
        self.cluster.iter().find(|network| network.contains(&address)).copied()
    }

    /// The networks of the cluster that the administrator has named.
    pub fn cluster_networks(&self) -> &[IpNet] {
        &self.cluster
    }

    /// Whether the administrator has named any network of the cluster.
    pub fn knows_the_cluster(&self) -> bool {
        !self.cluster.is_empty()
    }
}

/// Why an address is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not an IP address.
    #[error(
        "{0:?} is not an IP address; write it in canonical form, such as 192.0.2.10 or 2001:db8::1"
    )]
    Malformed(String),
    /// No endpoint may have this address.
    #[error(
        "{address} is {kind}, which is never published; name an address that other machines can reach"
    )]
    Forbidden {
        /// The address.
        address: IpAddr,
        /// What kind of address it is.
        kind: &'static str,
    },
    /// The administrator has not allowed this address.
    #[error(
        "{address} lies outside the ranges allowed for namespace {namespace} ({allowed}); ask the operator's administrator to allow it (--outside-range {namespace}=CIDR)"
    )]
    NotAllowed {
        /// The address.
        address: IpAddr,
        /// The namespace.
        namespace: String,
        /// The allowed ranges, for the message.
        allowed: String,
    },
    /// It is in a network of the cluster.
    #[error(
        "{address} lies in {network}, a network of the cluster (--cluster-network) for Pods, Services and Nodes; an outside instance cannot have it"
    )]
    OfCluster {
        /// The address.
        address: IpAddr,
        /// The network.
        network: IpNet,
    },
    /// It belongs to an object of the cluster.
    #[error("{address} belongs to {owner}; an outside instance cannot have it")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The object that has it.
        owner: String,
    },
}

/// Refuses addresses that no endpoint may have, whatever their source: unspecified, loopback, link-local (which
/// includes most metadata services), multicast, broadcast, the 0.0.0.0/8 network and cloud metadata addresses. It also
/// refuses IPv4 written as IPv6, because that could hide one of them.
///
/// # Errors
/// [`AddressError::Forbidden`] with the kind of address.
pub fn publishable(address: IpAddr) -> Result<IpAddr, AddressError> {
    let kind = match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an address of this network"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(v6) if v6.to_ipv4().is_some() => Some("an IPv4 address written as IPv6"),
        _ if METADATA_SERVICES.contains(&address) => Some("a cloud metadata address"),
        _ => None,
    };
    match kind {
        Some(kind) => Err(AddressError::Forbidden { address, kind }),
        None => Ok(address),
    }
}

/// The metadata services that are not in a link-local range: AWS over IPv6, Alibaba Cloud, and the platform address of
/// Azure.
const METADATA_SERVICES: [IpAddr; 3] = [
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(std::net::Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(std::net::Ipv4Addr::new(168, 63, 129, 16)),
];

/// Checks the address of an outside instance. `owner` returns the object that has an address, if the cluster knows it:
/// a Pod, a Service or the API server.
///
/// # Errors
/// [`AddressError`], which says what is wrong and who can correct it.
pub fn outside(
    named: &Named,
    namespace: &str,
    ranges: &OutsideRanges,
    owner: impl FnOnce(IpAddr) -> Option<String>,
) -> Result<IpAddr, AddressError> {
    let address = match named {
        Named::Address(address) => publishable(*address)?,
        Named::Other(text) => return Err(AddressError::Malformed(text.chars().take(64).collect())),
    };
    let allowed = ranges.of(namespace);
    if !allowed.iter().any(|range| range.contains(&address)) {
        let allowed = match allowed {
            [] => "none".to_owned(),
            ranges => ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", "),
        };
        return Err(AddressError::NotAllowed { address, namespace: namespace.to_owned(), allowed });
    }
    if let Some(network) = ranges.cluster_network(address) {
        return Err(AddressError::OfCluster { address, network });
    }
    match owner(address) {
        Some(owner) => Err(AddressError::Taken { address, owner }),
        None => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<IpAddr, AddressError> {
        let ranges = ["shop=192.0.2.0/24", "shop=2001:db8::/64", "shop=0.0.0.0/0", "shop=::/0"]
            .iter()
            .map(|text| text.parse().expect(text))
            .collect();
        outside(&text.into(), "shop", &ranges, |_| None)
    }

    #[test]
    fn addresses_that_no_endpoint_may_have_are_refused_even_inside_an_allowed_range() {
        for (address, kind) in [
            ("127.0.0.1", "a loopback address"),
            ("127.8.8.8", "a loopback address"),
            ("::1", "a loopback address"),
            ("0.0.0.0", "the unspecified address"),
            ("::", "the unspecified address"),
            ("0.1.2.3", "an address of this network"),
            ("169.254.169.254", "a link-local address"),
            ("fe80::1", "a link-local address"),
            ("224.0.0.1", "a multicast address"),
            ("ff02::1", "a multicast address"),
            ("255.255.255.255", "the broadcast address"),
            ("::ffff:127.0.0.1", "an IPv4 address written as IPv6"),
            ("fd00:ec2::254", "a cloud metadata address"),
        ] {
            let error = check(address).expect_err(address);
            assert!(
                matches!(&error, AddressError::Forbidden { kind: found, .. } if *found == kind),
                "{address}: {error}"
            );
        }
    }

    #[test]
    fn without_a_range_for_the_namespace_no_outside_address_is_allowed() {
        let ranges = ["shop=192.0.2.0/24".parse().expect("a range")].into_iter().collect();
        assert!(outside(&"192.0.2.1".into(), "shop", &ranges, |_| None).is_ok());
        let error =
            outside(&"192.0.2.1".into(), "bank", &ranges, |_| None).expect_err("another namespace");
        assert_eq!(
            error.to_string(),
            "192.0.2.1 lies outside the ranges allowed for namespace bank (none); ask the operator's \
             administrator to allow it (--outside-range bank=CIDR)"
        );
        assert!(outside(&"198.51.100.1".into(), "shop", &ranges, |_| None).is_err());
    }

    #[test]
    fn what_belongs_to_the_cluster_is_refused_with_its_owner() {
        let ranges = ["shop=10.0.0.0/8".parse().expect("a range")].into_iter().collect();
        let error =
            outside(&"10.1.2.3".into(), "shop", &ranges, |_| Some("Pod shop/cart".to_owned()))
                .expect_err("a Pod's");
        assert_eq!(
            error.to_string(),
            "10.1.2.3 belongs to Pod shop/cart; an outside instance cannot have it"
        );
    }

    #[test]
    fn garbage_is_quoted() {
        for text in ["", "vm-1", "192.0.2.1:80", "192.0.2.01", "192.0.2.0/24", "1.2.3"] {
            assert_eq!(check(text), Err(AddressError::Malformed(text.to_owned())));
        }
    }
}
