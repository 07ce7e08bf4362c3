//! What the API server has said about tokens, and how often it may be asked. It has no I/O and no clock.
//!
//! A client that reaches the port can send unknown tokens, each of them once. So no memory of refused tokens
//! bounds what they cost the API server; a rate limit does. Tokens that were allowed before have a rate limit of their
//! own: a flood of others does not keep Prometheus out.

use std::{collections::HashMap, fmt, time::Duration};

use beatkeeper_api::{explain::EXPLAIN_AUDIENCE, text::plain};
use beatkeeper_core::vocabulary::{
    key::Key,
    monotonic_time::MonotonicTime,
    rate_limit::{RateLimit, RateLimiter},
};

/// How long an allowed token is not asked about again. So long, at most, a token works on that was revoked.
const ALLOWED_FOR: Duration = Duration::from_secs(30);
/// How long a refused token is not asked about again. So long, at most, a new right has no effect.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// How long a token that was allowed counts as known.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// How often the API server is asked about tokens that are not known, and about known ones.
const ASK: RateLimit = RateLimit { burst: 20, every: Duration::from_millis(200) };
/// The most tokens that are remembered. The rate limits alone let at most a few hundred of them be refused within
/// [`REFUSED_FOR`].
const REMEMBERED_MAX: usize = 256;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::controller) enum Access {
    /// To get `/metrics`.
    Metrics,
    /// To get this ServiceRegistration, whether it exists or not.
    Registration(Key),
}

impl Access {
    /// The audience that a token must be meant for; `None` for the API server's own.
    pub(super) fn audience(&self) -> Option<&'static str> {
        match self {
            Self::Metrics => None,
            Self::Registration(_) => Some(EXPLAIN_AUDIENCE),
        }
    }

    /// What a user lacks that may not.
    pub(super) fn lacking(&self) -> String {
        match self {
            Self::Metrics => {
                "bind a ClusterRole with the rule {nonResourceURLs: [\"/metrics\"], verbs: [\"get\"]} to it"
                    .to_owned()
            }
            Self::Registration(Key { namespace, name }) => format!(
                "it needs the right to get serviceregistrations.beatkeeper.dev {} in namespace {}",
                plain(name),
                plain(namespace)
            ),
        }
    }
}

/// What is read, for the log.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metrics => f.write_str("/metrics"),
            Self::Registration(key) => {
                write!(f, "ServiceRegistration {}", plain(&key.to_string()))
            }
        }
    }
}

/// A token, and what it is to be good for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) token: String,
    pub(super) access: Access,
}

/// What the API server has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::controller) enum Verdict {
    /// The user may.
    Allowed,
    /// It is no token of a user.
    Unauthenticated,
    /// The user may not.
    Forbidden {
        /// The name of the user.
        user: String,
    },
}

/// Whether the API server has to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// No: it has said this lately.
    Remembered(Verdict),
    /// Yes.
    Ask,
    /// It was asked too often. The next time is at this moment.
    TooMany(MonotonicTime),
}

struct Answer {
    verdict: Verdict,
    at: MonotonicTime,
}

impl Answer {
    fn holds_for(&self) -> Duration {
        if self.verdict == Verdict::Allowed { ALLOWED_FOR } else { REFUSED_FOR }
    }

    fn holds(&self, now: MonotonicTime) -> bool {
        now.since(self.at) < self.holds_for()
    }

    /// Whether it is worth remembering.
    fn counts(&self, now: MonotonicTime) -> bool {
        let known = self.verdict == Verdict::Allowed && now.since(self.at) < KNOWN_FOR;
        known || self.holds(now)
    }
}

/// The answers, and the rate limits.
#[derive(Default)]
pub(super) struct Decisions {
    answers: HashMap<Question, Answer>,
    unknown: RateLimiter,
    known: RateLimiter,
}

impl Decisions {
    /// What was said lately; `None` if it has to be asked.
    pub(super) fn remembered(&self, question: &Question, now: MonotonicTime) -> Option<Verdict> {
        let answer = self.answers.get(question)?;
        answer.holds(now).then(|| answer.verdict.clone())
    }

    /// What to do with a question. To ask takes one permit.
    pub(super) fn next(&mut self, question: &Question, now: MonotonicTime) -> Next {
        if let Some(verdict) = self.remembered(question, now) {
            return Next::Remembered(verdict);
        }
        let known = self
            .answers
            .get(question)
            .is_some_and(|answer| answer.verdict == Verdict::Allowed && answer.counts(now));
        let limiter = if known { &mut self.known } else { &mut self.unknown };
        match limiter.take(ASK, now) {
            Ok(()) => Next::Ask,
            Err(at) => Next::TooMany(at),
        }
    }

    /// Remembers an answer.
    pub(super) fn remember(&mut self, question: Question, verdict: Verdict, now: MonotonicTime) {
        self.answers.retain(|_, answer| answer.counts(now));
        self.answers.remove(&question);
        if self.answers.len() >= REMEMBERED_MAX {
            // A refusal that is forgotten costs one question more; a known token would lose its place.
            let first = self
                .answers
                .iter()
                .min_by_key(|(_, answer)| (answer.verdict == Verdict::Allowed, answer.at));
            if let Some(first) = first.map(|(question, _)| question.clone()) {
                self.answers.remove(&first);
            }
        }
        self.answers.insert(question, Answer { verdict, at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime::from_millis(1_000_000 + millis)
    }

    fn question(token: impl ToString) -> Question {
        Question { token: token.to_string(), access: Access::Metrics }
    }

    fn forbidden() -> Verdict {
        Verdict::Forbidden { user: "u".to_owned() }
    }

    #[test]
    fn an_answer_is_remembered_for_a_short_time() {
        for (verdict, holds) in [(Verdict::Allowed, 30_000), (forbidden(), 10_000)] {
            let (mut decisions, prometheus) = (Decisions::default(), question("p"));
            assert_eq!(decisions.next(&prometheus, at(0)), Next::Ask);
            decisions.remember(prometheus.clone(), verdict.clone(), at(0));
            let last = at(holds - 1);
            assert_eq!(decisions.next(&prometheus, last), Next::Remembered(verdict));
            assert_eq!(decisions.next(&prometheus, at(holds)), Next::Ask);
        }
    }

    #[test]
    fn a_flood_of_tokens_asks_at_a_steady_rate_and_keeps_no_known_token_out() {
        let (mut decisions, prometheus) = (Decisions::default(), question("p"));
        assert_eq!(decisions.next(&prometheus, at(0)), Next::Ask);
        decisions.remember(prometheus.clone(), Verdict::Allowed, at(0));
        let (mut asked, mut scraped) = (0, 0);
        // A token each millisecond, for a minute.
        for millis in 0..60_000 {
            let bad = question(millis);
            match decisions.next(&bad, at(millis)) {
                Next::Ask => {
                    asked += 1;
                    decisions.remember(bad, Verdict::Unauthenticated, at(millis));
                }
                Next::TooMany(next) => assert!(next > at(millis) && next <= at(millis + 200)),
                Next::Remembered(_) => panic!("it was never asked about"),
            }
            if millis % 15_000 == 0 {
                match decisions.next(&prometheus, at(millis)) {
                    Next::Remembered(Verdict::Allowed) => scraped += 1,
                    Next::Ask => {
                        scraped += 1;
                        decisions.remember(prometheus.clone(), Verdict::Allowed, at(millis));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(asked, 19 + 299, "the rest of the burst, and five a second");
        assert_eq!(scraped, 4);
        assert!(decisions.answers.len() <= 1 + 20 + 50, "{}", decisions.answers.len());
    }

    #[test]
    fn a_token_that_may_get_one_registration_is_asked_about_for_each_other_one() {
        let of = |name: &str| Question {
            token: "t".to_owned(),
            access: Access::Registration(Key::new("shop", name)),
        };
        let mut decisions = Decisions::default();
        decisions.remember(of("greeter"), Verdict::Allowed, at(0));
        assert_eq!(decisions.next(&of("greeter"), at(1)), Next::Remembered(Verdict::Allowed));
        assert_eq!(decisions.next(&of("orders"), at(1)), Next::Ask);
        assert_eq!(decisions.next(&question("t"), at(1)), Next::Ask, "nor may it read the metrics");
        // And no faster than about tokens that are not known.
        let asked = (0..100).filter(|n| decisions.next(&of(&n.to_string()), at(2)) == Next::Ask);
        assert_eq!(asked.count(), 18);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_known_tokens_go_last() {
        let mut decisions = Decisions::default();
        decisions.remember(question("p"), Verdict::Allowed, at(0));
        for n in 0..2 * REMEMBERED_MAX as u64 {
            decisions.remember(question(n), forbidden(), at(n));
        }
        assert_eq!(decisions.answers.len(), REMEMBERED_MAX);
        assert_eq!(decisions.remembered(&question("p"), at(600)), Some(Verdict::Allowed));
        assert_eq!(decisions.remembered(&question(0), at(600)), None, "the oldest has gone");
        for n in 0..2 * REMEMBERED_MAX as u64 {
            decisions.remember(question(format!("a-{n}")), Verdict::Allowed, at(n));
        }
        assert_eq!(decisions.answers.len(), REMEMBERED_MAX);
    }
}
