//! How long candidates wait for each other.

use std::time::Duration;

use beatkeeper_api::duration::format;

/// A rival waits a twentieth less than the lease duration. The last sign of life took its way to the
/// rival, the claim takes its own, and so does what is published first: that is time enough for them, so
/// that a takeover is over within the lease duration, counted from the crash.
const HEAD_START: u32 = 20;

/// How long candidates wait for each other, checked against one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    lease: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Why these durations cannot work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationsError {
    /// A leader would go on while another takes over.
    #[error(
        "--leader-elect-renew-deadline is {}, which must be shorter than --leader-elect-lease-duration, {}, \
         by more than one part in {HEAD_START} of that: a leader has to stop before another may take over",
        format(*renew_deadline), format(*lease)
    )]
    RenewDeadline {
        /// What was given for the renew deadline.
        renew_deadline: Duration,
        /// What was given for the lease.
        lease: Duration,
    },
    /// A leader would lose its claim without having tried twice.
    #[error(
        "--leader-elect-retry-period is {}, which must be above zero and less than half of \
         --leader-elect-renew-deadline, {}: one try may fail",
        format(*retry_period), format(*renew_deadline)
    )]
    RetryPeriod {
        /// What was given for the retry period.
        retry_period: Duration,
        /// What was given for the renew deadline.
        renew_deadline: Duration,
    },
}

impl Durations {
    /// How long rivals wait without a change, how long a leader goes on without an answer, and the
    /// pause between two tries.
    ///
    /// # Errors
    /// [`DurationsError`], which names the flags.
    pub fn new(
        lease: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, DurationsError> {
        if renew_deadline >= all_but_the_head_start(lease) {
            return Err(DurationsError::RenewDeadline { renew_deadline, lease });
        }
        if retry_period.is_zero() || retry_period * 2 >= renew_deadline {
            return Err(DurationsError::RetryPeriod { retry_period, renew_deadline });
        }
        Ok(Self { lease, renew_deadline, retry_period })
    }

    /// How long a rival waits for a sign of life of a holder that has written this duration. While flags
    /// change, replicas may differ in them: the holder counts on what it has written.
    pub fn patience(&self, written: Duration) -> Duration {
        all_but_the_head_start(self.lease.max(written))
    }

    /// The same as `leaseDurationSeconds`, rounded up.
    pub fn lease_seconds(&self) -> i32 {
        let whole = self.lease.as_secs() + u64::from(self.lease.subsec_nanos() > 0);
        i32::try_from(whole).unwrap_or(i32::MAX)
    }

    /// How long a claim holds after the last successful request was sent.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// The pause between two tries.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// How long one request may take: a second one must still fit into the renew deadline.
    pub fn request_timeout(&self) -> Duration {
        (self.renew_deadline - self.retry_period) / 2
    }
}

fn all_but_the_head_start(lease: Duration) -> Duration {
    lease - lease / HEAD_START
}
