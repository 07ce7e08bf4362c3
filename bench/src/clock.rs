//! One clock for all processes of a run.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// A moment on the kernel's monotonic clock, in seconds. Processes on one machine can compare such moments, unlike
/// [`Instant`], and adjustments of the wall clock do not affect them.
pub type Moment = f64;

/// Returns the current moment.
pub fn now() -> Moment {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Returns the moment of an instant in the past.
pub fn moment_of(instant: Instant) -> Moment {
    let ago = instant.elapsed().as_secs_f64();
    now() - ago
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_its_moment() {
        let (before, instant) = (now(), Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(2));
        let moment = moment_of(instant);
        assert!(moment >= before && now() - moment >= 0.002);
    }
}
