//! Reserves free ports, which stay reserved while their process is stopped.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rand::Rng;

/// The range is below the one that Linux uses for outgoing connections (32768 on), so that no client's connection
/// can take the port of a stopped API server. It is also below the NodePort range (30000 on).
const RANGE: std::ops::Range<u16> = 10_000..30_000;

/// A port of 127.0.0.1. While this value lives, no other control plane takes the port.
///
/// The reservation is a socket in the abstract namespace. It vanishes with its owner, leaves no file to remove, and
/// is visible to exactly those processes that share our ports.
pub(crate) struct Port {
    pub(crate) number: u16,
    _reservation: UnixListener,
}

/// Reserves a random free port. Another program may still bind it before our process does; the caller then tries
/// again.
pub(crate) fn reserve() -> Result<Port> {
    for _ in 0..200 {
        let number = rand::rng().random_range(RANGE);
        if let Some(reservation) = reserve_number(number)
            && TcpListener::bind(("127.0.0.1", number)).is_ok()
        {
            return Ok(Port { number, _reservation: reservation });
        }
    }
    bail!("no free port found in {}..{} on 127.0.0.1", RANGE.start, RANGE.end)
}

/// Reserves a free port for a program that cannot choose one itself, or for several that listen there one after the
/// other. It stays reserved until this process ends.
///
/// # Errors
/// If no port is free.
pub fn free_port() -> Result<u16> {
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = reserve()?;
    let number = port.number;
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(port);
    Ok(number)
}

fn reserve_number(number: u16) -> Option<UnixListener> {
    let name = format!("beatkeeper-port-{number}");
    let address = SocketAddr::from_abstract_name(name).ok()?;
    UnixListener::bind_addr(&address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let port = reserve().unwrap();
        assert!(reserve_number(port.number).is_none());
        let number = port.number;
        drop(port);
        assert!(reserve_number(number).is_some());
    }

    #[test]
    fn a_free_port_stays_reserved() {
        assert!(reserve_number(free_port().unwrap()).is_none());
    }
}
