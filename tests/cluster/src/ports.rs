//! Free ports that stay ours while the process behind them is down.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Result, bail};
use rand::Rng;

/// Below the range that Linux takes for outgoing connections (32768 on): a stopped API server's port cannot be taken
/// by some client's connection. Below the NodePort range (30000 on) as well.
const RANGE: std::ops::Range<u16> = 10_000..30_000;

/// A port of 127.0.0.1, reserved among control planes for as long as this lives.
///
/// The reservation is a socket in the abstract namespace: it vanishes with its owner, leaves no file to sweep, and
/// is shared by exactly those processes that share our ports.
pub(crate) struct Port {
    pub(crate) number: u16,
    _reservation: UnixListener,
}

/// Takes a random free port. Something else may still bind it before its process does: the caller tries again then.
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
}
