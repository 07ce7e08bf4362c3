//! Decides which address of a name to connect to: it tries all of them, as RFC 8305 describes.
//!
//! A dead address does not answer at all, and the system gives up only after two minutes. So the attempt at
//! the next address begins a quarter of a second later, in parallel, and the first success wins. The dialer
//! remembers the address of that success and tries it first from then on. An attempt succeeds when the TLS
//! handshake is done: a dead server behind an address may still seem to accept connections.
//!
//! Names are looked up each time, because an API server may move. If a resolver does not answer, and
//! addresses are known from before, it delays nothing.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use beatkeeper_api::text::plain_error_chain;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared},
    stream::FuturesUnordered,
};
use tokio::time::{Instant, sleep_until, timeout};
use tower::BoxError;

/// The time before the attempt at the next address begins ("Connection Attempt Delay" of RFC 8305).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long a lookup may take before the known addresses are used.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(250);

/// An address that was left is tried last for so long: about the time in which a gateway ends, and another one takes its
/// place.
const LEFT_FOR: Duration = Duration::from_secs(60);

/// Looks up the addresses of a host.
pub(crate) type Resolver =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The resolver of the system.
pub(crate) fn system() -> Resolver {
    Arc::new(|host, port| {
        async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }.boxed()
    })
}

type Lookup = Shared<BoxFuture<'static, Result<Vec<SocketAddr>, Arc<io::Error>>>>;

/// What is known of one name.
#[derive(Default)]
struct KnownHost {
    /// All addresses from the last lookup.
    addresses: Vec<SocketAddr>,
    /// The address of the last success.
    good: Option<SocketAddr>,
    /// The addresses that were left, and when, in this order.
    left: Vec<(SocketAddr, Instant)>,
    /// At most one lookup runs at a time: each hanging lookup would occupy a thread.
    lookup: Option<Lookup>,
}

impl KnownHost {
    /// In which order to try an address: the good one first, and then those that were not left.
    fn rank(&self, address: SocketAddr) -> usize {
        if Some(address) == self.good {
            return 0;
        }
        let left = |(one, at): &(SocketAddr, Instant)| *one == address && at.elapsed() < LEFT_FOR;
        self.left.iter().position(left).map_or(1, |place| place + 2)
    }

    /// All addresses, and the rank of each.
    fn ranked(&self) -> Vec<(SocketAddr, usize)> {
        self.addresses.iter().map(|address| (*address, self.rank(*address))).collect()
    }
}

/// Connects to names.
pub(super) struct Dialer {
    resolver: Resolver,
    known: Mutex<HashMap<(String, u16), KnownHost>>,
}

impl Dialer {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, known: Mutex::default() }
    }

    /// Tries this address after all others, for [`LEFT_FOR`]; `None`: the address of the last success.
    pub(super) fn leave(&self, host: &str, port: u16, address: Option<SocketAddr>) {
        self.with(host, port, |known| {
            let Some(address) = address.or(known.good) else { return };
            known.good = known.good.filter(|good| *good != address);
            known.left.retain(|(one, at)| *one != address && at.elapsed() < LEFT_FOR);
            known.left.push((address, Instant::now()));
        });
    }

    /// Returns the first attempt that succeeds at an address of this host.
    pub(super) async fn dial<T, A>(
        &self,
        host: &str,
        port: u16,
        attempt: impl Fn(SocketAddr) -> A,
    ) -> Result<T, DialError>
    where
        A: Future<Output = Result<T, BoxError>>,
    {
        let mut attempts = FuturesUnordered::new();
        let mut failed = DialError { host: host.to_owned(), causes: Vec::new() };
        let mut waiting = Candidates::default();
        let mut lookup = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => {
                waiting.add(&[((address, port).into(), 0)]);
                None
            }
            Err(_) => self.begin(host, port, &mut waiting, &mut failed).await,
        };
        let mut turn = Instant::now();
        loop {
            let looking = lookup.is_some();
            tokio::select! {
                biased;
                Some((address, result)) = attempts.next(), if !attempts.is_empty() => match result {
                    Ok(connection) => {
                        self.with(host, port, |known| {
                            known.good = Some(address);
                            known.left.retain(|(one, _)| *one != address);
                        });
                        return Ok(connection);
                    }
                    Err(error) => {
                        failed.causes.push((Some(address), error));
                        turn = Instant::now();
                    }
                },
                () = sleep_until(turn), if !waiting.is_empty() => {
                    let Some(address) = waiting.next() else { continue };
                    attempts.push(attempt(address).map(move |result| (address, result)));
                    turn = Instant::now() + ATTEMPT_DELAY;
                }
                found = found(&mut lookup), if looking => {
                    lookup = None;
                    self.learn(host, port, found, &mut waiting, &mut failed);
                }
                else => return Err(failed),
            }
        }
    }

    /// Looks the host up. If the lookup is slow and addresses are known from before, it continues beside
    /// them, and is returned.
    async fn begin(
        &self,
        host: &str,
        port: u16,
        waiting: &mut Candidates,
        failed: &mut DialError,
    ) -> Option<Lookup> {
        let lookup = self.with(host, port, |known| {
            // If a lookup has ended, a task that waited for it has recorded its result. If no task waited,
            // the result is lost.
            let under_way = known.lookup.take().filter(|lookup| lookup.peek().is_none());
            let begin = || {
                let lookup = (self.resolver)(host.to_owned(), port);
                // In a task of its own, the lookup continues after the waiting request gives up.
                let lookup = tokio::spawn(lookup);
                async move {
                    let found = lookup.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                    found.map_err(Arc::new)
                }
                .boxed()
                .shared()
            };
            known.lookup.insert(under_way.unwrap_or_else(begin)).clone()
        });
        match timeout(RESOLVE_TIMEOUT, lookup.clone()).await {
            Ok(found) => {
                self.learn(host, port, found, waiting, failed);
                None
            }
            Err(_) => {
                waiting.add(&self.with(host, port, |known| known.ranked()));
                Some(lookup)
            }
        }
    }

    /// Records the result of a lookup. If the lookup found nothing, the known addresses stay.
    fn learn(
        &self,
        host: &str,
        port: u16,
        found: Result<Vec<SocketAddr>, Arc<io::Error>>,
        waiting: &mut Candidates,
        failed: &mut DialError,
    ) {
        let addresses = self.with(host, port, |known| {
            match found {
                Ok(found) if !found.is_empty() => known.addresses = found,
                Ok(_) => failed.causes.push((None, "it has no address".into())),
                Err(error) => failed.causes.push((None, Box::new(error))),
            }
            known.ranked()
        });
        waiting.add(&addresses);
    }

    fn with<T>(&self, host: &str, port: u16, act: impl FnOnce(&mut KnownHost) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        act(known.entry((host.to_owned(), port)).or_default())
    }
}

async fn found(lookup: &mut Option<Lookup>) -> Result<Vec<SocketAddr>, Arc<io::Error>> {
    match lookup {
        Some(lookup) => lookup.await,
        None => std::future::pending().await,
    }
}

/// The addresses that were not tried yet.
#[derive(Default)]
struct Candidates {
    next: VecDeque<SocketAddr>,
    seen: Vec<SocketAddr>,
}

impl Candidates {
    /// Adds the new addresses in the order of their ranks: the last good one has 0. Among those of one rank, both IP
    /// families have their turns, beginning with the first address of the resolver.
    fn add(&mut self, found: &[(SocketAddr, usize)]) {
        let new: Vec<(SocketAddr, usize)> =
            found.iter().filter(|(address, _)| !self.seen.contains(address)).copied().collect();
        let first = new.first().map(|(address, _)| address.is_ipv4());
        let (mut ones, mut others): (VecDeque<_>, VecDeque<_>) =
            new.into_iter().partition(|(address, _)| Some(address.is_ipv4()) == first);
        let mut ordered = Vec::new();
        while !(ones.is_empty() && others.is_empty()) {
            ordered.extend(ones.pop_front());
            ordered.extend(others.pop_front());
        }
        ordered.sort_by_key(|(_, rank)| *rank);
        for (address, _) in ordered {
            if !self.seen.contains(&address) {
                self.seen.push(address);
                self.next.push_back(address);
            }
        }
    }

    fn next(&mut self) -> Option<SocketAddr> {
        self.next.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.next.is_empty()
    }
}

/// No attempt at an address of a host succeeded.
#[derive(Debug)]
pub(super) struct DialError {
    host: String,
    /// The reason for each address; without an address if the lookup failed.
    causes: Vec<(Option<SocketAddr>, BoxError)>,
}

impl std::error::Error for DialError {}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot reach {}", self.host)?;
        for (n, (address, cause)) in self.causes.iter().enumerate() {
            f.write_str(if n == 0 { ": " } else { "; " })?;
            if let Some(address) = address.filter(|address| address.ip().to_string() != self.host) {
                write!(f, "{address}: ")?;
            }
            f.write_str(&plain_error_chain(cause.as_ref()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
