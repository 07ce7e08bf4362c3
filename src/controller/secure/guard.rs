//! Lets a request pass, or says why not.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use beatkeeper_api::{
    bearer::{TOKEN_MAX, bearer},
    text::plain,
};
use beatkeeper_core::vocabulary::rate_limit::{RateLimit, RateLimiter};
use tokio::{sync::Semaphore, time::timeout};

pub(in crate::controller) use super::decisions::Access;
use super::{
    decisions::{Decisions, Next, Question, Verdict},
    review::{ReviewFailed, Reviewer},
};
use crate::controller::clock::Clock;

/// How many questions the API server is asked at the same time.
const PARALLEL: usize = 4;
/// How long a request waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// How often the log tells that reviews fail.
const TELL: RateLimit = RateLimit { burst: 1, every: Duration::from_secs(30) };

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::controller) enum Refused {
    #[error("needs a token: send the header Authorization: Bearer TOKEN")]
    NoToken,
    #[error(
        "the API server does not accept this token: it may have expired, or be meant for another audience{}",
        .0.map(|audience| format!(" than {audience}")).unwrap_or_default()
    )]
    BadToken(Option<&'static str>),
    #[error("{user} may not read this; {lacking}")]
    Forbidden { user: String, lacking: String },
    #[error("too many tokens: try again in {} s", .0.as_secs().max(1))]
    TooMany(Duration),
    #[error("cannot ask the API server about the token")]
    NotReviewed,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = format!("{self}\n");
        match self {
            Self::NoToken | Self::BadToken(_) => {
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body)
                    .into_response()
            }
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, body).into_response(),
            Self::TooMany(wait) => {
                let wait = wait.as_secs().max(1).to_string();
                (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, wait)], body).into_response()
            }
            Self::NotReviewed => (StatusCode::SERVICE_UNAVAILABLE, body).into_response(),
        }
    }
}

/// Decides about requests.
pub(in crate::controller) struct Guard<R> {
    reviewer: R,
    clock: Clock,
    decisions: Mutex<Decisions>,
    told: Mutex<RateLimiter>,
    turns: Semaphore,
}

impl<R: Reviewer> Guard<R> {
    pub(in crate::controller) fn new(reviewer: R, clock: Clock) -> Self {
        Self {
            reviewer,
            clock,
            decisions: Mutex::default(),
            told: Mutex::default(),
            turns: Semaphore::new(PARALLEL),
        }
    }

    fn decisions(&self) -> MutexGuard<'_, Decisions> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request with these headers pass.
    ///
    /// # Errors
    /// [`Refused`], which is the answer.
    pub(in crate::controller) async fn check(
        &self,
        headers: &HeaderMap,
        access: Access,
    ) -> Result<(), Refused> {
        let values = headers.get_all(header::AUTHORIZATION).iter();
        let token = bearer(values.map(|value| value.as_bytes())).ok_or(Refused::NoToken)?;
        if token.len() > TOKEN_MAX {
            return Err(Refused::BadToken(access.audience()));
        }
        let question = Question { token: token.to_owned(), access: access.clone() };
        let verdict = match self.remembered(&question) {
            Some(verdict) => verdict,
            None => self.ask(question).await?,
        };
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::Unauthenticated => Err(Refused::BadToken(access.audience())),
            Verdict::Forbidden { user } => {
                let user = plain(&user).into_owned();
                Err(Refused::Forbidden { user, lacking: access.lacking() })
            }
        }
    }

    fn remembered(&self, question: &Question) -> Option<Verdict> {
        self.decisions().remembered(question, self.clock.now())
    }

    async fn ask(&self, question: Question) -> Result<Verdict, Refused> {
        // The answer to an equal question may come while this one waits.
        let turn = timeout(TURN_WITHIN, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Refused::NotReviewed) };
        let now = self.clock.now();
        let next = self.decisions().next(&question, now);
        match next {
            Next::Remembered(verdict) => return Ok(verdict),
            Next::TooMany(at) => return Err(Refused::TooMany(at.since(now))),
            Next::Ask => {}
        }
        let verdict = match self.reviewer.review(&question.token, &question.access).await {
            Ok(verdict) => verdict,
            Err(failure) => {
                self.tell(&failure);
                return Err(Refused::NotReviewed);
            }
        };
        if let Verdict::Forbidden { user } = &verdict {
            tracing::warn!(
                user = &*plain(user),
                access = %question.access,
                "refused a request: the user may not get this"
            );
        }
        self.decisions().remember(question, verdict.clone(), self.clock.now());
        Ok(verdict)
    }

    fn tell(&self, failure: &ReviewFailed) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.take(TELL, self.clock.now()).is_ok() {
            tracing::warn!(error = %failure, "cannot check the token of a request; answering 503");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use tokio::sync::Notify;

    use super::*;

    /// Knows two tokens, and fails for a third.
    #[derive(Default)]
    struct Known {
        asked: AtomicUsize,
        /// If set, answers wait for it.
        slow: Option<Arc<Notify>>,
    }

    impl Reviewer for Known {
        async fn review(&self, token: &str, _: &Access) -> Result<Verdict, ReviewFailed> {
            self.asked.fetch_add(1, SeqCst);
            if let Some(slow) = &self.slow {
                slow.notified().await;
            }
            match token {
                "good" => Ok(Verdict::Allowed),
                "poor" => Ok(Verdict::Forbidden { user: "jane".to_owned() }),
                "away" => Err(ReviewFailed::Late(crate::kube_client::TimedOut(Duration::ZERO))),
                _ => Ok(Verdict::Unauthenticated),
            }
        }
    }

    fn headers(value: &str) -> HeaderMap {
        let value = value.parse().expect("a value");
        [(header::AUTHORIZATION, value)].into_iter().collect()
    }

    async fn code<R: Reviewer>(guard: &Guard<R>, headers: &HeaderMap) -> u16 {
        match guard.check(headers, Access::Metrics).await {
            Ok(()) => 200,
            Err(refused) => refused.into_response().status().as_u16(),
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_by_what_its_token_is_good_for() {
        let guard = Guard::new(Known::default(), Clock::start());
        for (value, expected) in [
            ("Bearer good", 200),
            ("bearer  good", 200),
            ("Bearer poor", 403),
            ("Bearer other", 401),
            ("Bearer away", 503),
            ("Bearer ", 401),
            ("good", 401),
            ("Basic good", 401),
        ] {
            assert_eq!(code(&guard, &headers(value)).await, expected, "{value}");
        }
        assert_eq!(code(&guard, &HeaderMap::new()).await, 401);
        let asked = guard.reviewer.asked.load(SeqCst);
        assert_eq!(
            code(&guard, &headers(&format!("Bearer {}", "x".repeat(TOKEN_MAX + 1)))).await,
            401
        );
        assert_eq!(
            guard.reviewer.asked.load(SeqCst),
            asked,
            "the API server is not asked about such a token"
        );
        let refused = guard.check(&headers("Bearer poor"), Access::Metrics).await.expect_err("403");
        assert!(refused.to_string().starts_with("jane may not read this"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_answered_with_429_and_known_tokens_pass() {
        let clock = Clock::of_the_runtime(|| jiff::Timestamp::UNIX_EPOCH);
        let guard = Guard::new(Known::default(), clock);
        assert_eq!(code(&guard, &headers("Bearer good")).await, 200);
        let mut codes = Vec::new();
        for n in 0..100 {
            codes.push(code(&guard, &headers(&format!("Bearer bad-{n}"))).await);
        }
        assert_eq!(codes.iter().filter(|code| **code == 401).count(), 19);
        assert_eq!(codes.iter().filter(|code| **code == 429).count(), 81);
        assert_eq!(guard.reviewer.asked.load(SeqCst), 20);
        // Its answer is too old by then, and it is asked about before the others.
        tokio::time::sleep(Duration::from_secs(31)).await;
        for n in 0..100 {
            code(&guard, &headers(&format!("Bearer worse-{n}"))).await;
        }
        assert_eq!(code(&guard, &headers("Bearer good")).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_hangs_is_asked_four_times_at_once_and_the_others_get_503() {
        let clock = Clock::of_the_runtime(|| jiff::Timestamp::UNIX_EPOCH);
        let slow = Arc::new(Notify::new());
        let guard =
            Arc::new(Guard::new(Known { slow: Some(slow.clone()), ..Known::default() }, clock));
        let ask = |n: usize| {
            let guard = guard.clone();
            tokio::spawn(async move { code(&guard, &headers(&format!("Bearer {n}"))).await })
        };
        let first: Vec<_> = (0..4).map(ask).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(ask(5).await.expect("no panic"), 503);
        assert_eq!(guard.reviewer.asked.load(SeqCst), 4);
        slow.notify_waiters();
        for one in first {
            assert_eq!(one.await.expect("no panic"), 401);
        }
    }

    #[tokio::test]
    async fn many_requests_with_one_token_ask_once() {
        let slow = Arc::new(Notify::new());
        let reviewer = Known { slow: Some(slow.clone()), ..Known::default() };
        let guard = Arc::new(Guard::new(reviewer, Clock::start()));
        let requests: Vec<_> = (0..40)
            .map(|_| {
                let guard = guard.clone();
                tokio::spawn(async move { code(&guard, &headers("Bearer good")).await })
            })
            .collect();
        while guard.reviewer.asked.load(SeqCst) < PARALLEL {
            tokio::task::yield_now().await;
        }
        slow.notify_waiters();
        for request in requests {
            assert_eq!(request.await.expect("no panic"), 200);
        }
        assert_eq!(guard.reviewer.asked.load(SeqCst), PARALLEL);
    }
}
