//! Tests of the order in which addresses are tried.

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
    assert_eq!(reach(&dialer, &[address(1)]).await, (address(1), ATTEMPT_DELAY), "it has moved");
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

#[tokio::test(start_paused = true)]
async fn an_address_that_was_left_is_tried_last_for_a_minute() {
    let all = [address(1), address(2), address(3)];
    let dialer = Dialer::new(resolver(all.to_vec()));
    let order = async || reach(&dialer, &all).await.0;
    assert_eq!(order().await, address(1));
    dialer.leave("api.example", 6443, None);
    assert_eq!(order().await, address(2));
    dialer.leave("api.example", 6443, Some(address(2)));
    assert_eq!(order().await, address(3));
    dialer.leave("api.example", 6443, Some(address(3)));
    assert_eq!(order().await, address(1), "of those that were left, the one left first");
    tokio::time::advance(LEFT_FOR).await;
    dialer.leave("api.example", 6443, None);
    assert_eq!(order().await, address(2), "the others were left long ago");
}

#[test]
fn both_families_have_a_turn_early() {
    let v6 = |last: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 6443));
    let mut waiting = Candidates::default();
    let found = [(v6(1), 1), (v6(2), 1), (v6(3), 1), (address(1), 1), (address(2), 0)];
    waiting.add(&found);
    let order: Vec<SocketAddr> = std::iter::from_fn(|| waiting.next()).collect();
    assert_eq!(order, [address(2), v6(1), address(1), v6(2), v6(3)]);
    waiting.add(&[(v6(1), 1), (address(9), 1)]);
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
