//! Tests of pauses and time limits.

use super::*;
use proptest::prelude::*;

fn registration(ttl: &str, interval: &str) -> ServiceRegistration {
    let mut registration = ServiceRegistration::default();
    registration.spec.ttl = ttl.to_owned();
    registration.spec.interval = interval.to_owned();
    registration
}

fn pace(ttl: &str, interval: &str) -> Pace {
    Pace::of(&registration(ttl, interval), None).expect("a pace")
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn an_instance_may_beat_faster_than_the_registration_says_but_not_slower() {
    let registration = registration("9s", "3s");
    for (wanted, interval) in [(None, 3000), (Some(1000), 1000), (Some(5000), 3000)] {
        let pace = Pace::of(&registration, wanted.map(ms)).expect("a pace");
        assert_eq!((pace.interval(), pace.ttl()), (ms(interval), ms(9000)));
    }
}

#[test]
fn a_spec_that_no_instance_can_follow_is_explained() {
    for (ttl, interval, message) in [
        ("3s", "3s", "spec.interval 3s must be at least 100ms and shorter than spec.ttl 3s"),
        ("3s", "0s", "spec.interval 0s must be at least 100ms and shorter than spec.ttl 3s"),
    ] {
        let error = Pace::of(&registration(ttl, interval), None).expect_err("no pace");
        assert_eq!(error.to_string(), message);
    }
    let error = Pace::of(&registration("1d", "3s"), None).expect_err("no pace").to_string();
    assert!(error.starts_with("spec.ttl: \"1d\" is not a duration"), "{error}");
}

#[test]
fn the_lease_duration_is_the_ttl_rounded_up_to_seconds() {
    for (ttl, seconds) in [("3s", 3), ("1500ms", 2), ("1s1ms", 2), ("24h", 86_400)] {
        assert_eq!(pace(ttl, "500ms").lease_duration_seconds(), seconds, "{ttl}");
    }
}

#[test]
fn beats_come_at_the_interval_give_or_take_a_tenth() {
    let pace = pace("30s", "10s");
    assert_eq!(pace.pause(0.0), ms(9000));
    assert_eq!(pace.pause(0.5), ms(10_000));
    assert_eq!(pace.pause(0.999_999), ms(10_999) + Duration::from_micros(998));
}

#[test]
fn instances_that_start_together_are_spread_over_the_whole_interval() {
    let pace = pace("30s", "10s");
    assert_eq!([0.0, 0.25, 0.5].map(|roll| pace.phase(roll)), [0, 2500, 5000].map(ms));
}

#[test]
fn jitter_shrinks_where_the_interval_comes_close_to_the_ttl() {
    assert_eq!(pace("1s", "960ms").pause(0.0), ms(950));
    assert_eq!(pace("1s", "960ms").pause(0.5), ms(960));
}

#[test]
fn a_request_that_takes_too_long_leaves_time_for_another() {
    for (ttl, interval, timeout) in [
        ("30s", "20s", 5000),
        ("3s", "1s", 1000),
        ("1s", "900ms", 250),
        ("1s", "100ms", 250),
        ("24h", "1h", 10_000),
    ] {
        assert_eq!(pace(ttl, interval).request_timeout(), ms(timeout), "{ttl}/{interval}");
    }
}

#[test]
fn retries_slow_down_until_four_of_them_fit_into_the_slack() {
    let pace = pace("3s", "1s");
    let mut backoff = Backoff::default();
    let bounds: Vec<_> = (0..6).map(|_| backoff.pause(room(&pace, 1000), None, 1.0)).collect();
    assert_eq!(bounds, [100, 200, 400, 500, 500, 500].map(ms));
    backoff.reset();
    assert_eq!(backoff.pause(room(&pace, 1000), None, 0.5), ms(50));
}

#[test]
fn before_the_registration_was_read_retries_slow_down_to_five_seconds() {
    let mut backoff = Backoff::default();
    let last = (0..100).map(|_| backoff.pause(RetryLimits::UNKNOWN, None, 1.0)).last();
    assert_eq!(last, Some(ms(5000)));
}

fn room(pace: &Pace, silent: u64) -> RetryLimits {
    RetryLimits::between_beats(pace, Some(ms(silent)))
}

#[test]
fn a_retry_after_is_honoured_and_spread_by_half_of_it() {
    let room = room(&pace("30s", "10s"), 10_000);
    let pause = |roll| Backoff::default().pause(room, Some(ms(2000)), roll);
    assert_eq!([0.0, 0.5, 1.0].map(pause), [2000, 2500, 3000].map(ms));
}

#[test]
fn a_retry_after_beyond_the_ttl_leaves_time_for_another_try() {
    // The API server sends the first beat away: 20 s are left, of which one request may take 10 s.
    let pace = pace("30s", "10s");
    for asked in [Duration::from_secs(32), Duration::from_secs(86_400), Duration::MAX] {
        let pause = |roll| Backoff::default().pause(room(&pace, 10_000), Some(asked), roll);
        assert_eq!([0.0, 0.5, 1.0].map(pause), [5000, 7500, 10_000].map(ms));
    }
    // Shortly before the ttl has passed, and afterwards.
    assert_eq!(Backoff::default().pause(room(&pace, 29_000), Some(Duration::MAX), 1.0), ms(2500));
    assert_eq!(Backoff::default().pause(room(&pace, 31_000), Some(Duration::MAX), 1.0), ms(20_000));
}

#[test]
fn before_the_registration_was_read_a_retry_after_counts_for_five_seconds() {
    let pause = Backoff::default().pause(RetryLimits::UNKNOWN, Some(Duration::MAX), 1.0);
    assert_eq!(pause, ms(5000));
}

#[test]
fn a_retry_after_never_outlasts_a_deadline() {
    let pause = |roll| {
        Backoff::default().pause(RetryLimits::until(ms(5000), None), Some(Duration::MAX), roll)
    };
    assert_eq!([0.0, 1.0].map(pause), [1250, 2500].map(ms));
}

proptest! {
    /// A server sends every beat away, with any Retry-After.
    #[test]
    fn whatever_the_server_asks_for_a_beat_is_tried_again_before_the_ttl_is_over(
        ttl in prop_oneof![2_000u64..120_000, 120_000u64..86_400_000],
        share in 0.01f64..0.9,
        asked in proptest::collection::vec((proptest::option::of(0u64..=u64::MAX), 0.0f64..1.0), 64),
    ) {
        let interval = ms((ttl as f64 * share) as u64).max(INTERVAL_MIN);
        let pace = Pace { ttl: ms(ttl), interval };
        let mut backoff = Backoff::default();
        // The latest moment at which a beat is due, which leaves the least of the ttl.
        let (mut silent, mut tries) = (pace.pause(1.0), 0u32);
        for (seconds, roll) in asked {
            if silent >= pace.ttl() {
                break;
            }
            tries += 1;
            let room = RetryLimits::between_beats(&pace, Some(silent));
            let pause = backoff.pause(room, seconds.map(Duration::from_secs), roll);
            prop_assert!(pause <= pace.slack());
            // An answer to the next try comes in time, unless the end of the ttl is already close.
            let left = (pace.ttl() - silent).saturating_sub(pace.request_timeout());
            prop_assert!(pause <= left.max(pace.retry_max()), "{pause:?} of {left:?}");
            silent += pause;
        }
        prop_assert!(tries >= 2, "only {tries} try before the ttl was over");
    }

    /// A fleet that was sent away at one moment does not retry at one moment.
    #[test]
    fn what_was_sent_away_together_comes_back_spread(
        ttl in prop_oneof![2_000u64..120_000, 120_000u64..86_400_000],
        share in 0.01f64..0.9,
        silent in 0.0f64..1.2,
        seconds in 1u64..=u64::MAX,
    ) {
        let interval = ms((ttl as f64 * share) as u64).max(INTERVAL_MIN);
        let pace = Pace { ttl: ms(ttl), interval };
        let room = RetryLimits::between_beats(&pace, Some(pace.ttl().mul_f64(silent)));
        let pause = |roll| Backoff::default().pause(room, Some(Duration::from_secs(seconds)), roll);
        let (first, last) = (pause(0.0), pause(1.0));
        prop_assert!(last >= first.mul_f64(1.3), "all between {first:?} and {last:?}");
    }

    #[test]
    fn no_pause_between_beats_reaches_the_ttl(ttl in 1_000u64..86_400_000, share in 0.0f64..1.0, roll in 0.0f64..1.0) {
        let interval = ms((ttl as f64 * share) as u64).max(INTERVAL_MIN);
        prop_assume!(interval < ms(ttl));
        let pace = Pace { ttl: ms(ttl), interval };
        let pause = pace.pause(roll);
        prop_assert!(pause < pace.ttl());
        prop_assert!(pause >= interval.mul_f64(0.899) && pause <= interval.mul_f64(1.101));
    }
}
