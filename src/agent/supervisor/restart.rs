//! Restarts a task that panics, at once: its instance must not stop beating, and the other instances of the
//! agent must not be affected.

use std::time::Duration;

use beatkeeper_api::duration;
use beatkeeper_client::{
    panics::{Panic, catch_panic},
    schedule::{Backoff, RetryLimits},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::control::Controls;
use crate::agent::console::Console;

/// After a run of this length, a panic does not count as a repetition of the one before.
const CALM: Duration = Duration::from_secs(60);

/// Runs a task to its end, and again after each panic; `run` is told whether it is the first time.
///
/// # Errors
/// The task panicked while it was stopping.
pub(super) async fn restarted<T, F: Future<Output = T>>(
    console: &Console,
    controls: &Controls,
    mut run: impl FnMut(bool) -> F,
) -> Result<Option<T>, Panic> {
    let mut backoff = Backoff::default();
    let mut first = true;
    while !controls.leave.is_cancelled() {
        let (began, stops) = (Instant::now(), controls.stop.is_cancelled());
        let panic = match catch_panic(async { run(first).await }).await {
            Ok(end) => return Ok(Some(end)),
            Err(panic) => panic,
        };
        first = false;
        if stops {
            return Err(panic);
        }
        if began.elapsed() > CALM {
            backoff.reset();
        }
        let pause = backoff.pause(RetryLimits::UNKNOWN, None, rand::random());
        console.print(&format!("{panic}; beginning again in {}", duration::format(pause)));
        let asked = |token: &CancellationToken| token.clone().cancelled_owned();
        tokio::select! {
            // The work at the end of the task is still to be done.
            () = asked(&controls.stop) => {}
            () = asked(&controls.leave) => {}
            () = sleep(pause) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    fn console() -> Console {
        Console::new(false).of("greeter.vm-1")
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_begun_again_and_hears_that_it_is_not_the_first_time() {
        let (console, controls) = (console(), Controls::default());
        let (began, mut heard) = (Instant::now(), Vec::new());
        let ended = restarted(&console, &controls, |first| {
            heard.push(first);
            let turn = heard.len();
            async move { if turn < 5 { panic!("turn {turn}") } else { turn } }
        });
        assert_eq!(ended.await, Ok(Some(5)));
        assert_eq!(heard, [true, false, false, false, false]);
        assert!(began.elapsed() > Duration::ZERO, "it was begun again without a pause");
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_while_it_waits_to_begin_again_is_stopped_at_once() {
        let console = console();
        let (controls, turns) = (Controls::default(), Arc::new(AtomicUsize::new(0)));
        let stop = controls.stop.clone();
        let counted = Arc::clone(&turns);
        let ended = restarted(&console, &controls, move |_| {
            let turn = counted.fetch_add(1, SeqCst);
            let stop = stop.clone();
            async move {
                if turn == 3 {
                    stop.cancel();
                }
                if turn < 4 {
                    panic!("turn {turn}");
                }
            }
        });
        // After the panic and the stop, one more run does the work at the end of the task.
        assert_eq!(ended.await, Ok(Some(())));
        assert_eq!(turns.load(SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_at_its_end_is_told_as_an_error_and_what_leaves_is_not_begun_again() {
        let (console, controls) = (console(), Controls::default());
        controls.stop.cancel();
        let ended = restarted(&console, &controls, |_| async { panic!("at the end") });
        let ended: Result<Option<()>, Panic> = ended.await;
        assert_eq!(
            ended.map_err(|panic| panic.to_string()),
            Err("the program panicked: at the end".to_owned())
        );
        let controls = Controls::default();
        let leave = controls.leave.clone();
        let ended = restarted(&console, &controls, |_| {
            leave.cancel();
            async { panic!("on the way") }
        });
        assert_eq!(ended.await, Ok(None::<()>));
    }
}
