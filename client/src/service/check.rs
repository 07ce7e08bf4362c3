//! Runs the health check of a service.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{duration, heartbeat::Health};
use tokio::{sync::watch, time::timeout};

use super::hooks::Check;
use crate::{lease::HealthReport, panics::catch_panic, suspend::sleep};

/// Runs the check again and again, forever, and passes on its results. The pause is between the end of one
/// check and the start of the next, so that a long check is not followed by another one at once.
pub(crate) async fn run(check: Check, every: Duration, health: Arc<watch::Sender<HealthReport>>) {
    loop {
        // The check is a function of the app: its panic is a result like any other.
        let checked = catch_panic(async { timeout(every, check()).await }).await;
        let health_report = match checked {
            Ok(Ok(Ok(()))) => HealthReport::default(),
            Ok(Ok(Err(error))) => failing(error.to_string()),
            Err(panic) => failing(panic.to_string()),
            Ok(Err(_)) => {
                failing(format!("the check took longer than {}", duration::format(every)))
            }
        };
        health.send_if_modified(|said| {
            let news = *said != health_report;
            *said = health_report;
            news
        });
        sleep(every).await;
    }
}

fn failing(note: String) -> HealthReport {
    HealthReport { health: Health::Failing, note: Some(note), provisional: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[tokio::test(start_paused = true)]
    async fn what_a_check_says_is_told_and_one_that_is_slow_or_panics_counts_as_failed() {
        let asked = Arc::new(AtomicUsize::new(0));
        let check: Check = Arc::new(move || {
            let turn = asked.fetch_add(1, Relaxed);
            Box::pin(async move {
                match turn {
                    0 => Ok(()),
                    1 => Err("disk 91 %".into()),
                    2 => std::future::pending().await,
                    3 => panic!("no disk"),
                    _ => Ok(()),
                }
            })
        });
        let (health, mut heard) = watch::channel(HealthReport::default());
        let every = Duration::from_secs(10);
        let task = tokio::spawn(run(check, every, Arc::new(health)));
        let mut said = Vec::new();
        for _ in 0..4 {
            heard.changed().await.expect("a word");
            said.push(heard.borrow_and_update().clone());
        }
        task.abort();
        let slow = failing("the check took longer than 10s".to_owned());
        let panics = failing("the program panicked: no disk".to_owned());
        assert_eq!(said, [failing("disk 91 %".to_owned()), slow, panics, HealthReport::default()]);
    }
}
