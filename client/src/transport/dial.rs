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

/// Looks up the addresses of a host.
pub(super) type Resolver =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The resolver of the system.
pub(super) fn system() -> Resolver {
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
    /// At most one lookup runs at a time: each hanging lookup would occupy a thread.
    lookup: Option<Lookup>,
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
                waiting.add(&[(address, port).into()], None);
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
                        self.with(host, port, |known| known.good = Some(address));
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
                let (known, good) =
                    self.with(host, port, |known| (known.addresses.clone(), known.good));
                waiting.add(&known, good);
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
        let (addresses, good) = self.with(host, port, |known| {
            match found {
                Ok(found) if !found.is_empty() => known.addresses = found,
                Ok(_) => failed.causes.push((None, "it has no address".into())),
                Err(error) => failed.causes.push((None, Box::new(error))),
            }
            (known.addresses.clone(), known.good)
        });
        waiting.add(&addresses, good);
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
    /// Adds the new addresses: first the last good one, then both IP families by turns, beginning with the
    /// first address of the resolver.
    fn add(&mut self, found: &[SocketAddr], good: Option<SocketAddr>) {
        let new: Vec<SocketAddr> =
            found.iter().filter(|address| !self.seen.contains(address)).copied().collect();
        let first = new.first().copied();
        let (mut ones, mut others): (VecDeque<SocketAddr>, VecDeque<SocketAddr>) = new
            .into_iter()
            .partition(|address| Some(address.is_ipv4()) == first.map(|it| it.is_ipv4()));
        let mut ordered = Vec::new();
        while !(ones.is_empty() && others.is_empty()) {
            ordered.extend(ones.pop_front());
            ordered.extend(others.pop_front());
        }
        ordered.sort_by_key(|address| Some(*address) != good);
        for address in ordered {
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 6443).into()
    }

    fn resolver(found: Vec<SocketAddr>) -> Resolver {
        Arc::new(move |_, _| std::future::ready(Ok(found.clone())).boxed())
    }

    /// Connects to an address in `alive`; the others never answer. Returns the address and how long it took.
    async fn reach(dialer: &Dialer, alive: &[SocketAddr]) -> (SocketAddr, Duration) {
        let begun = Instant::now();
        let attempt = async |address: SocketAddr| {
            if !alive.contains(&address) {
                std::future::pending::<()>().await;
            }
            Ok(address)
        };
        let reached = dialer.dial("api.example", 6443, attempt).await.expect("a connection");
        (reached, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_costs_a_quarter_of_a_second_and_only_once() {
        let dialer = Dialer::new(resolver(vec![address(1), address(2), address(3)]));
        assert_eq!(reach(&dialer, &[address(3)]).await, (address(3), 2 * ATTEMPT_DELAY));
        assert_eq!(reach(&dialer, &[address(3)]).await, (address(3), Duration::ZERO));
        assert_eq!(
            reach(&dialer, &[address(1)]).await,
            (address(1), ATTEMPT_DELAY),
            "it has moved"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_makes_way_at_once() {
        let dialer = Dialer::new(resolver(vec![address(1), address(2)]));
        let attempt = async |at: SocketAddr| {
            if at == address(1) { Err("refused".into()) } else { Ok(at) }
        };
        let begun = Instant::now();
        let reached = dialer.dial("api.example", 6443, attempt).await.expect("a connection");
        assert_eq!((reached, begun.elapsed()), (address(2), Duration::ZERO));
        let refused = async |_| Err::<(), BoxError>("refused".into());
        let error = dialer.dial("api.example", 6443, refused).await.expect_err("none is left");
        let told = "cannot reach api.example: 192.0.2.2:6443: refused; 192.0.2.1:6443: refused";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn both_families_have_a_turn_early() {
        let v6 = |last: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 6443));
        let mut waiting = Candidates::default();
        waiting.add(&[v6(1), v6(2), v6(3), address(1), address(2)], Some(address(2)));
        let order: Vec<SocketAddr> = std::iter::from_fn(|| waiting.next()).collect();
        assert_eq!(order, [address(2), v6(1), address(1), v6(2), v6(3)]);
        waiting.add(&[v6(1), address(9)], None);
        assert_eq!(waiting.next(), Some(address(9)), "each has one turn");
        assert!(waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_holds_up_nothing_where_addresses_are_known() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let dialer = Dialer::new(Arc::new(move |_, _| {
            if count.fetch_add(1, Relaxed) == 0 {
                std::future::ready(Ok(vec![address(1)])).boxed()
            } else {
                std::future::pending().boxed()
            }
        }));
        assert_eq!(reach(&dialer, &[address(1)]).await, (address(1), Duration::ZERO));
        for _ in 0..3 {
            assert_eq!(reach(&dialer, &[address(1)]).await, (address(1), RESOLVE_TIMEOUT));
        }
        assert_eq!(asked.load(Relaxed), 2, "one look-up at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_resolver_finds_has_its_turn_beside_what_is_known() {
        let asked = Arc::new(AtomicUsize::new(0));
        let dialer = Dialer::new(Arc::new(move |_, _| {
            let first = asked.fetch_add(1, Relaxed) == 0;
            async move {
                if first {
                    return Ok(vec![address(1)]);
                }
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(vec![address(2)])
            }
            .boxed()
        }));
        reach(&dialer, &[address(1)]).await;
        // The API server has moved.
        assert_eq!(reach(&dialer, &[address(2)]).await, (address(2), Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_unknown_is_told() {
        let unknown = || std::future::ready(Err(io::Error::other("no such name"))).boxed();
        let dialer = Dialer::new(Arc::new(move |_, _| unknown()));
        let error = dialer.dial("api.example", 6443, async |_| Ok(())).await.expect_err("unknown");
        assert_eq!(error.to_string(), "cannot reach api.example: no such name");
    }
}
