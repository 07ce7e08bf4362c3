//! Places for connections: so many in all, for one network, and for one address.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
};

use crate::counts::Counts;

/// How many places there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// In all.
    pub all: usize,
    /// For one network with IPv6, which are 64 bits. One host may have all its addresses, and so may the Pods of a subnet.
    pub network: usize,
    /// For one address.
    pub address: usize,
}

/// The places that are taken.
#[derive(Debug, Default)]
pub struct Places {
    taken: Cell<usize>,
    by_network: Counts<Ipv6Addr>,
    by_address: Counts<IpAddr>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// None is left.
    Full,
    /// The network has too many.
    Network,
    /// The address has too many.
    Address,
}

impl NoPlace {
    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Network => "network",
            Self::Address => "address",
        }
    }
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Rc<Places>,
    address: IpAddr,
}

impl Places {
    /// Takes a place for an address.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn take(self: &Rc<Self>, address: IpAddr, shares: Shares) -> Result<Place, NoPlace> {
        let address = address.to_canonical();
        if self.taken.get() >= shares.all {
            return Err(NoPlace::Full);
        }
        if network(address).is_some_and(|it| self.by_network.of(&it) >= shares.network) {
            return Err(NoPlace::Network);
        }
        if self.by_address.of(&address) >= shares.address {
            return Err(NoPlace::Address);
        }
        self.taken.set(self.taken.get() + 1);
        if let Some(network) = network(address) {
            self.by_network.more(network);
        }
        self.by_address.more(address);
        Ok(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { places, address } = self;
        places.taken.set(places.taken.get() - 1);
        if let Some(network) = network(*address) {
            places.by_network.less(&network);
        }
        places.by_address.less(address);
    }
}

/// The network of 64 bits of an address.
fn network(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares { all: 5, network: 3, address: 2 };

    fn taken(address: &str, places: &Rc<Places>) -> Result<Place, NoPlace> {
        places.take(address.parse().unwrap(), SHARES)
    }

    #[test]
    fn addresses_of_a_network_of_64_bits_are_counted_each_and_the_network_takes_not_all() {
        let places = Rc::new(Places::default());
        let _first = [(); 2].map(|()| taken("2001:db8::1", &places).unwrap());
        assert_eq!(taken("2001:db8::1", &places).err(), Some(NoPlace::Address));
        let _second = taken("2001:db8::ffff:0:0:2", &places).unwrap();
        assert_eq!(taken("2001:db8::3", &places).err(), Some(NoPlace::Network));
        let _next = taken("2001:db8:0:1::1", &places).unwrap();
        let _v4 = taken("192.0.2.1", &places).unwrap();
        assert_eq!(taken("192.0.2.2", &places).err(), Some(NoPlace::Full));
    }

    #[test]
    fn an_address_of_ipv4_in_ipv6_is_that_address_and_has_no_network() {
        let places = Rc::new(Places::default());
        let _mapped = ["192.0.2.1", "::ffff:192.0.2.1"].map(|it| taken(it, &places).unwrap());
        assert_eq!(taken("192.0.2.1", &places).err(), Some(NoPlace::Address));
        let _others =
            ["::ffff:192.0.2.2", "::ffff:192.0.2.3"].map(|it| taken(it, &places).unwrap());
        assert!(places.by_network.0.borrow().is_empty());
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped_and_nothing_is_kept_of_its_address() {
        let places = Rc::new(Places::default());
        for address in ["192.0.2.1", "2001:db8::1"] {
            let [first, second] = [(); 2].map(|()| taken(address, &places).unwrap());
            assert_eq!(taken(address, &places).err(), Some(NoPlace::Address));
            drop(first);
            let third = taken(address, &places).unwrap();
            drop((second, third));
        }
        assert_eq!((places.taken.get(), places.by_address.0.borrow().len()), (0, 0));
        assert!(places.by_network.0.borrow().is_empty());
    }
}
