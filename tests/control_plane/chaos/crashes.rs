//! The operator is killed repeatedly at random moments, while instances come and go.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::support::{
    Operator,
    chaos::{ChaosFixture, Scale},
};

async fn crashes(scale: Scale) {
    let mut chaos = ChaosFixture::new("operator killed at random under churn", scale).await;
    let mut operator = chaos.ns.operator();
    chaos.fill().await;
    let (mut rng, mut others) = (chaos.chance(), chaos.chance());
    let churn = chaos.instances.churn(&mut others, Duration::from_millis(400), Duration::MAX);
    let kills = async {
        let mut down = None;
        for _ in 0..scale.rounds {
            // The kill may come before the operator has read anything, or in the middle of its
            // work.
            let until = Instant::now() + Duration::from_millis(rng.random_range(50..4000));
            begun(&operator, until, &mut down, &chaos).await;
            tokio::time::sleep_until(until.into()).await;
            down.get_or_insert_with(Instant::now);
            operator.kill();
            operator = chaos.ns.operator();
        }
        begun(&operator, Instant::now() + Duration::from_secs(60), &mut down, &chaos).await;
        operator
    };
    let _operator = tokio::select! {
        () = churn => unreachable!("it goes on for ever"),
        operator = kills => operator,
    };
    chaos.settle(scale.rounds).await;
}

/// Waits until the operator publishes, but not beyond `until`. Records how long no operator
/// published.
async fn begun(
    operator: &Operator,
    until: Instant,
    down: &mut Option<Instant>,
    chaos: &ChaosFixture,
) {
    while Instant::now() < until && down.is_some() {
        if operator.logged().contains("publishing begins") {
            let from = down.take().expect("it is down");
            chaos.conditions.operator_away(from, Instant::now());
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_five_times_under_churn_prunes_no_living_instance() {
    crashes(Scale::thirty(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_operator_that_is_killed_fifty_times_in_full() {
    crashes(Scale::thirty(50)).await;
}
