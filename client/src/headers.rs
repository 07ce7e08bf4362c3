//! Values from the headers of answers, which kube drops.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};
use std::time::Duration;

use http::{HeaderMap, Response, header};
use jiff::{Timestamp, fmt::rfc2822};

/// The value while nothing is known.
const UNKNOWN: i64 = i64::MIN;

/// Holds the values from the last answers of a connection. Clones share them.
#[derive(Debug, Clone)]
pub struct Headers(Arc<Last>);

#[derive(Debug)]
struct Last {
    /// Seconds by which our wall clock is ahead of the server's.
    ahead: AtomicI64,
    /// Seconds for which the last answer asked us to wait.
    retry_after: AtomicU64,
}

impl Default for Headers {
    fn default() -> Self {
        Self(Arc::new(Last { ahead: AtomicI64::new(UNKNOWN), retry_after: AtomicU64::new(0) }))
    }
}

impl Headers {
    /// Returns a function that reads the headers of each answer.
    pub fn observer<B>(
        &self,
    ) -> impl Fn(Response<B>) -> Response<B> + Clone + Send + Sync + use<B> {
        let this = self.clone();
        move |response| {
            this.note(response.headers(), Timestamp::now());
            response
        }
    }

    fn note(&self, headers: &HeaderMap, now: Timestamp) {
        if let Some(servers) = date_of(headers) {
            self.0.ahead.store(now.as_second() - servers.as_second(), Relaxed);
        }
        let asked = retry_after(headers, now).map(|asked| asked.as_secs());
        self.0.retry_after.store(asked.unwrap_or(0), Relaxed);
    }

    /// By how many seconds our wall clock is ahead of the server's, ± 1 s.
    pub fn ahead(&self) -> Option<i64> {
        Some(self.0.ahead.load(Relaxed)).filter(|ahead| *ahead != UNKNOWN)
    }

    /// How long the last answer asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        Some(self.0.retry_after.load(Relaxed)).filter(|&asked| asked > 0).map(Duration::from_secs)
    }
}

/// Reads how long an answer asks to wait: a number of seconds, or a date. No other code reads this header.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds = match text(headers, header::RETRY_AFTER)? {
        // A number with too many digits means "forever".
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().unwrap_or(u64::MAX)
        }
        // A date is compared with the sender's clock if the answer has a Date header. An answer of a proxy
        // may have none.
        other => {
            let now = date_of(headers).unwrap_or(now);
            u64::try_from(date(other)?.as_second() - now.as_second()).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds))
}

fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    date(text(headers, header::DATE)?)
}

fn date(text: &str) -> Option<Timestamp> {
    rfc2822::parse(text).ok().map(|date| date.timestamp())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_clock_that_is_ahead_of_the_servers_is_told_by_the_date() {
        let reported = Headers::default();
        assert_eq!(reported.ahead(), None);
        let now: Timestamp = "2026-11-23T12:01:40Z".parse().expect("a time");
        reported.note(&headers(&[("date", "Mon, 23 Nov 2026 12:00:00 GMT")]), now);
        assert_eq!(reported.ahead(), Some(100));
        reported.note(&headers(&[("date", "yesterday")]), now);
        assert_eq!(reported.ahead(), Some(100), "what cannot be read changes nothing");
    }

    #[test]
    fn only_the_last_answer_says_how_long_to_stay_away() {
        let reported = Headers::default();
        let now = Timestamp::UNIX_EPOCH;
        reported.note(&headers(&[("retry-after", "7")]), now);
        assert_eq!(reported.retry_after(), Some(Duration::from_secs(7)));
        reported.note(&headers(&[]), now);
        assert_eq!(reported.retry_after(), None);
    }

    #[test]
    fn how_long_to_stay_away_may_be_a_date_and_whatever_else_a_proxy_sends() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
        let asked = |pairs: &[(&'static str, &str)]| {
            let reported = Headers::default();
            reported.note(&headers(pairs), now);
            reported.retry_after().map(|asked| asked.as_secs())
        };
        for (value, seconds) in [
            ("Mon, 23 Nov 2026 12:00:32 GMT", Some(32)),
            ("Mon, 23 Nov 2026 11:00:00 GMT", None),
            ("Wed, 01 Dec 9999 12:00:00 GMT", Some(251_604_230_400)),
            ("99999999999999999999999999", Some(u64::MAX)),
            (" 7 ", Some(7)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(asked(&[("retry-after", value)]), seconds, "{value:?}");
        }
        // The server's clock is an hour ahead of ours.
        let date = ("date", "Mon, 23 Nov 2026 13:00:00 GMT");
        assert_eq!(asked(&[date, ("retry-after", "Mon, 23 Nov 2026 13:00:05 GMT")]), Some(5));
    }
}
