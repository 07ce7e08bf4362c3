//! Beats through a gateway: when a beat takes which way, and what the loop does when a way fails.

mod run;

use beatkeeper_api::Carrier;

use super::*;
use crate::{event::CarrierEvent, gateway::CarriedBeat};
use run::{FakeGateway, Run, SECOND};

/// Longer than the pause between two reads of the registration while a gateway accepts the beats.
const REREAD: Duration = Duration::from_secs(310);

#[tokio::test(start_paused = true)]
async fn once_a_gateway_has_accepted_a_beat_the_lease_is_written_no_more() {
    let run = Run::carried().await;
    let (writes, accepted) = (run.writes(), run.gateway.accepted());
    assert!(
        writes <= 2,
        "the claim, and at most one beat until the gateway has answered: {writes}"
    );
    sleep(600 * SECOND).await;
    assert_eq!(run.writes(), writes);
    let beats = run.gateway.accepted() - accepted;
    assert!((590..=610).contains(&beats), "{beats} beats in 600 intervals");
    assert_eq!(run.changes(), [Carrier::Gateway]);
    run.has_no_gap();
    assert_eq!(troubles(&run.stop().await), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn both_changes_of_the_way_are_followed_and_no_beat_is_missing() {
    let run = Run::new(Carrier::Lease);
    sleep(20 * SECOND).await;
    assert_eq!(run.gateway.asked(), 0, "a gateway is asked only if the registration says so");
    run.want(Carrier::Gateway);
    sleep(20 * SECOND).await;
    assert_eq!(run.changes(), [Carrier::Gateway]);
    run.want(Carrier::Lease);
    sleep(REREAD).await;
    assert_eq!(run.changes(), [Carrier::Gateway, Carrier::Lease]);
    let (writes, accepted) = (run.writes(), run.gateway.accepted());
    sleep(20 * SECOND).await;
    assert!(run.writes() >= writes + 18, "the Lease is renewed again");
    assert_eq!(run.gateway.accepted(), accepted);
    run.has_no_gap();
    assert_eq!(troubles(&run.stop().await), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_until_a_gateway_accepts_a_beat_and_this_is_told_once() {
    let api = Api::with(|_| {});
    api.state().spec["carrier"] = json!("Gateway");
    let gateway = FakeGateway::new();
    gateway.answers(503);
    let run = Run::at(&api, &gateway, "192.0.2.1", BeatOptions::default());
    sleep(60 * SECOND).await;
    assert!(run.writes() >= 55, "{}", run.writes());
    assert!(gateway.asked() >= 55, "a gateway is tried after each beat");
    let told = run.diary().into_iter().filter(|event| matches!(event, Event::Carrier(_)));
    assert!(matches!(&told.collect::<Vec<_>>()[..], [Event::Carrier(CarrierEvent::NotYet(_))]));
    gateway.answers(200);
    sleep(5 * SECOND).await;
    assert_eq!(run.changes(), [Carrier::Gateway]);
    run.has_no_gap();
}

#[tokio::test(start_paused = true)]
async fn when_no_gateway_answers_any_more_the_gateways_are_tried_and_the_lease_is_not_written() {
    let run = Run::carried().await;
    let writes = run.writes();
    run.gateway.answers(503);
    let asked = run.gateway.asked();
    sleep(60 * SECOND).await;
    assert_eq!(run.writes(), writes, "a hundred thousand of them would overload the API server");
    let tries = run.gateway.asked() - asked;
    assert!((60..2000).contains(&tries), "{tries} tries in a minute, with a ttl of 3 s");
    let (accepted, back) = (run.gateway.accepted(), Instant::now());
    run.gateway.answers(200);
    sleep(5 * SECOND).await;
    assert!(run.gateway.accepted() >= accepted + 3);
    let first = run.gateway.accepted.lock().expect("no panic")[accepted];
    assert!(first - back <= SECOND, "within a quarter of the slack, and its jitter");
    assert_eq!(run.transitions(), 0, "the Lease was not claimed again");
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_says_lease_while_no_gateway_answers_is_followed_within_seconds() {
    let run = Run::carried().await;
    run.gateway.answers(503);
    sleep(5 * SECOND).await;
    let writes = run.writes();
    run.want(Carrier::Lease);
    sleep(15 * SECOND).await;
    assert_eq!(run.changes(), [Carrier::Gateway, Carrier::Lease]);
    assert!(run.writes() > writes);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_a_gateway_refuses_is_claimed_anew_and_renews_its_lease() {
    for code in [403, 404] {
        let run = Run::carried().await;
        let (writes, transitions) = (run.writes(), run.transitions());
        run.gateway.answers(code);
        sleep(2 * SECOND).await;
        assert_eq!(run.transitions(), transitions + 1, "{code}");
        let asked = run.gateway.asked();
        sleep(600 * SECOND).await;
        assert!(run.writes() > writes + 590, "{code}: {}", run.writes());
        assert_eq!(run.transitions(), transitions + 1, "{code}: it is claimed once");
        let tries = run.gateway.asked() - asked;
        assert!((2..=12).contains(&tries), "{code}: {tries} tries, at growing pauses");
        run.gateway.answers(200);
        sleep(REREAD).await;
        assert_eq!(run.changes(), [Carrier::Gateway, Carrier::Gateway], "{code}");
        run.has_no_gap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_created_when_the_gateway_says_so() {
    let run = Run::carried().await;
    run.api.state().lease = None;
    run.gateway.answers(404);
    sleep(2 * SECOND).await;
    assert!(run.api.state().lease.is_some());
    assert!(run.diary().iter().any(|event| matches!(event, Event::LeaseLost { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_down_stops_no_beat_through_a_gateway() {
    let run = Run::carried().await;
    run.api.state().down = true;
    let accepted = run.gateway.accepted();
    sleep(60 * SECOND).await;
    assert!(run.gateway.accepted() >= accepted + 58);
    // A health cannot be told now, and the beats go on all the same.
    let failing = HealthReport { health: Health::Failing, ..HealthReport::default() };
    run.health.send_replace(failing);
    let accepted = run.gateway.accepted();
    sleep(60 * SECOND).await;
    let beats = run.gateway.accepted() - accepted;
    assert!((45..=70).contains(&beats), "{beats} beats in 60 intervals");
    run.api.state().down = false;
    sleep(5 * SECOND).await;
    let lease = run.api.state().lease.clone().expect("a Lease");
    assert_eq!(lease["metadata"]["annotations"][HEALTH_ANNOTATION], "Failing");
    run.has_no_gap();
}

#[tokio::test(start_paused = true)]
async fn a_new_health_is_one_write_to_the_lease_at_once() {
    let run = Run::carried().await;
    for answers in [200, 503] {
        run.gateway.answers(answers);
        sleep(2 * SECOND).await;
        let (writes, note) = (run.writes(), Some(format!("while it answers {answers}")));
        let report = HealthReport { health: Health::Failing, note, ..HealthReport::default() };
        run.health.send_replace(report);
        sleep(SECOND / 10).await;
        assert_eq!(run.writes(), writes + 1, "{answers}");
        sleep(10 * SECOND).await;
        assert_eq!(run.writes(), writes + 1, "{answers}");
    }
    assert_eq!(run.changes(), [Carrier::Gateway]);
}

#[tokio::test(start_paused = true)]
async fn the_answers_of_a_gateway_are_the_pace_and_a_new_ttl_is_written_once() {
    let run = Run::carried().await;
    let writes = run.writes();
    *run.gateway.pace.lock().expect("no panic") =
        CarriedBeat { ttl: 20 * SECOND, interval: 5 * SECOND };
    sleep(6 * SECOND).await;
    let accepted = run.gateway.accepted();
    sleep(100 * SECOND).await;
    let beats = run.gateway.accepted() - accepted;
    assert!((18..=22).contains(&beats), "{beats} beats in 20 intervals");
    assert_eq!(run.writes(), writes + 1);
    let lease = run.api.state().lease.clone().expect("a Lease");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 20);
    // What makes no sense is not followed.
    *run.gateway.pace.lock().expect("no panic") = CarriedBeat { ttl: SECOND, interval: SECOND };
    sleep(100 * SECOND).await;
    assert_eq!(run.writes(), writes + 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_gateway_the_lease_is_renewed_and_one_warning_says_what_to_configure() {
    let api = Api::with(|_| {});
    api.state().spec["carrier"] = json!("Gateway");
    let (heartbeat_loop, diary) = heartbeat_loop(&api, BeatOptions::default());
    let running = tokio::spawn(heartbeat_loop.run(CancellationToken::new()));
    sleep(120 * SECOND).await;
    assert!(api.state().shown.len() >= 118);
    let told = troubles(&diary.lock().expect("no panic"));
    let [warning] = &told[..] else { panic!("{told:?}") };
    let set = "set gateway ($BEATKEEPER_GATEWAY) and gateway_ca_file ($BEATKEEPER_GATEWAY_CA_FILE)";
    assert!(warning.contains("shop/greeter") && warning.contains(set), "{warning}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_takes_the_lease_over_is_noticed_by_a_read_of_the_lease() {
    let run = Run::carried().await;
    {
        let mut state = run.api.state();
        let mut lease = state.lease.clone().expect("a Lease");
        lease["spec"]["leaseTransitions"] = json!(1);
        lease["metadata"]["annotations"]["beatkeeper.dev/addresses"] = json!("192.0.2.9");
        lease["spec"]["renewTime"] = json!("2999-01-01T00:00:00.000000Z");
        state.store(lease);
    }
    let is_noticed = || {
        let taken = |event: &Event| matches!(event, Event::TakenOverByOther { .. });
        run.diary().iter().any(taken)
    };
    assert!(!is_noticed());
    sleep(32 * SECOND).await;
    assert!(is_noticed(), "after at most 30 s, and a beat");
    let accepted = run.gateway.accepted();
    sleep(3 * SECOND).await;
    assert_eq!(run.gateway.accepted(), accepted, "it keeps no address of another one alive");
}

/// Two processes with one name at a gateway that accepts both. Returns how often the Lease was claimed in the hour after
/// the first five minutes.
async fn claims_of_two(addresses: [&str; 2], options: BeatOptions) -> i64 {
    let api = Api::with(|_| {});
    api.state().spec = json!({ "carrier": "Gateway", "ttl": "30s", "interval": "10s" });
    let gateway = FakeGateway::new();
    *gateway.pace.lock().expect("no panic") =
        CarriedBeat { ttl: 30 * SECOND, interval: 10 * SECOND };
    let one = Run::at(&api, &gateway, addresses[0], options);
    sleep(60 * SECOND).await;
    let other = Run::at(&api, &gateway, addresses[1], options);
    sleep(REREAD).await;
    let before = one.transitions();
    assert!(before > 0, "{:?}", other.diary());
    sleep(3600 * SECOND).await;
    one.transitions() - before
}

#[tokio::test(start_paused = true)]
async fn of_two_machines_with_one_name_one_stays_published() {
    let claims = claims_of_two(["192.0.2.1", "192.0.2.2"], BeatOptions::default()).await;
    assert_eq!(claims, 0, "the address changes no more");
}

#[tokio::test(start_paused = true)]
async fn two_agents_of_one_target_claim_no_more_often_than_without_a_gateway() {
    let shared = BeatOptions { shared: true, ..BeatOptions::default() };
    let claims = claims_of_two(["192.0.2.1", "192.0.2.1"], shared).await;
    assert!(claims <= 40, "{claims} claims in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stands_by_takes_over_when_the_carried_one_has_died() {
    let api = Api::with(|_| {});
    api.state().spec["carrier"] = json!("Gateway");
    let gateway = FakeGateway::new();
    let one = Run::at(&api, &gateway, "192.0.2.1", BeatOptions::default());
    sleep(10 * SECOND).await;
    let other = Run::at(&api, &gateway, "192.0.2.2", BeatOptions::default());
    sleep(100 * SECOND).await;
    let published = || {
        let lease = api.state().lease.clone().expect("a Lease");
        lease["metadata"]["annotations"]["beatkeeper.dev/addresses"].clone()
    };
    assert_eq!(published(), "192.0.2.2", "the latest claim");
    other.task.abort();
    sleep(10 * SECOND).await;
    assert_eq!(published(), "192.0.2.1", "after a ttl, since the other one wrote its Lease");
    assert!(!one.task.is_finished());
}
