//! How long candidates wait for each other.

use std::time::Duration;

use beatkeeper_api::duration::format;

/// A candidate waits for a twentieth less than the lease duration. That twentieth covers three delays: the last sign of
/// life on its way to the candidate, the claim on its way to the API server, and the first publication after that. So a
/// takeover is completed within the lease duration, counted from the crash of the leader.
const HEAD_START: u32 = 20;

/// The timings of leader election, validated against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    lease: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Why these durations do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationsError {
    /// A leader would continue while another candidate takes over.
    #[error(
        "--leader-elect-renew-deadline is {}, which must be shorter than --leader-elect-lease-duration, {}, \
         by more than one part in {HEAD_START} of that: a leader has to stop before another may take over",
        format(*renew_deadline), format(*lease)
    )]
    RenewDeadline {
        /// The given renew deadline.
        renew_deadline: Duration,
        /// The given lease duration.
        lease: Duration,
    },
    /// A leader would lose its claim before its second try.
    #[error(
        "--leader-elect-retry-period is {}, which must be above zero and less than half of \
         --leader-elect-renew-deadline, {}: one try may fail",
        format(*retry_period), format(*renew_deadline)
    )]
    RetryPeriod {
        /// The given retry period.
        retry_period: Duration,
        /// The given renew deadline.
        renew_deadline: Duration,
    },
}

impl Durations {
    /// Validates three durations: how long other candidates wait without a change of the Lease, how long a leader
    /// continues without an answer, and the pause between two tries.
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

    /// How long a candidate waits for a sign of life of a holder that has written this lease duration. Replicas may
    /// have different flags while the flags are being changed, and the holder relies on the duration that it has
    /// written.
    pub fn patience(&self, written: Duration) -> Duration {
        all_but_the_head_start(self.lease.max(written))
    }

    /// The lease duration in seconds, rounded up, for `leaseDurationSeconds`.
    pub fn lease_seconds(&self) -> i32 {
        let whole = self.lease.as_secs() + u64::from(self.lease.subsec_nanos() > 0);
        i32::try_from(whole).unwrap_or(i32::MAX)
    }

    /// How long a claim is valid after the last successful request was sent.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// The pause between two tries.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// The timeout of one request. It leaves time for a second request within the renew deadline.
    pub fn request_timeout(&self) -> Duration {
        (self.renew_deadline - self.retry_period) / 2
    }
}

fn all_but_the_head_start(lease: Duration) -> Duration {
    lease - lease / HEAD_START
}
