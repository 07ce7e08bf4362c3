//! The time by the API server's clock.
//!
//! The times in objects come from the API server and the operator. The clock of the computer on which a person runs
//! kubectl may differ by minutes, and would then show each instance as silent, or none.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::{Client, client::Body};

use crate::error::Error;

/// A smaller difference is not corrected: the header has whole seconds, and the answer needs some time.
const TOLERATED: SignedDuration = SignedDuration::from_secs(2);

/// The API server's clock, as told once and continued by the monotonic clock of this process.
#[derive(Debug, Clone, Copy)]
pub struct ServerClock {
    told: Timestamp,
    at: Instant,
    /// How far the clock of this computer is ahead of the API server's; zero if hardly.
    ahead: SignedDuration,
}

impl ServerClock {
    /// Asks the API server for its time.
    ///
    /// # Errors
    /// [`Error::Request`], if it does not answer at all. A refusal is an answer.
    pub async fn ask(client: &Client) -> Result<Self, Error> {
        Self::ask_and_see(client).await.map(|(clock, _)| clock)
    }

    /// The same, with the status of the answer. It is 401 if the API server does not accept the credentials.
    ///
    /// # Errors
    /// [`Error::Request`], if it does not answer at all. A refusal is an answer.
    pub async fn ask_and_see(client: &Client) -> Result<(Self, StatusCode), Error> {
        let request = Request::get("/version").body(Body::empty());
        let request = request.expect("a constant path makes a request");
        let asked = Instant::now();
        let answer = client.send(request).await;
        let answer = answer.map_err(|error| Error::of_request("reach the API server", &error))?;
        let date = answer.headers().get(http::header::DATE);
        let date = date.and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        // The clock was read somewhere within its second, and half-way through the exchange.
        let middle = Duration::from_millis(500).saturating_sub(asked.elapsed() / 2);
        let told = date
            .map(|date| date.timestamp() + SignedDuration::try_from(middle).unwrap_or_default());
        Ok((Self::at(told, Timestamp::now(), Instant::now()), answer.status()))
    }

    fn at(told: Option<Timestamp>, local: Timestamp, at: Instant) -> Self {
        let ahead = told.map_or(SignedDuration::ZERO, |told| local.duration_since(told));
        match told {
            Some(told) if ahead.abs() > TOLERATED => Self { told, at, ahead },
            _ => Self { told: local, at, ahead: SignedDuration::ZERO },
        }
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.at.elapsed()).unwrap_or(SignedDuration::MAX);
        self.told.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// How far the clock of this computer is ahead of the API server's; negative if it is behind, and zero if the two
    /// hardly differ.
    pub fn ahead(&self) -> SignedDuration {
        self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_computer_with_a_wrong_clock_follows_the_api_server() {
        let clock = ServerClock::at(Some(at(1_000)), at(1_300), Instant::now());
        assert_eq!(clock.ahead(), SignedDuration::from_secs(300));
        assert!(clock.now().duration_since(at(1_000)) < SignedDuration::from_secs(100));
    }

    #[test]
    fn a_small_difference_or_a_missing_header_leaves_the_computers_clock() {
        for told in [Some(at(1_001)), Some(at(999)), None] {
            let clock = ServerClock::at(told, at(1_000), Instant::now());
            assert_eq!(clock.ahead(), SignedDuration::ZERO);
            assert!(clock.now() >= at(1_000));
        }
    }
}
