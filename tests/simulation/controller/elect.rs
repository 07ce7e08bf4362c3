//! Leader election. Mirrors leader/ of the shell, without the watch of the Lease.

use std::{rc::Rc, time::Duration};

use beatkeeper_core::replica::leader::{Candidate, Draft, Durations, Move};

use super::Controller;
use crate::api::{Answer, Call, Refusal};

const LEASE: Duration = Duration::from_secs(5);
const RENEW_DEADLINE: Duration = Duration::from_millis(3500);
const RETRY_PERIOD: Duration = Duration::from_secs(1);

pub fn candidate(identity: &str) -> Candidate {
    let durations = Durations::new(LEASE, RENEW_DEADLINE, RETRY_PERIOD).expect("they fit");
    Candidate::new(identity.to_owned(), durations)
}

impl Controller {
    pub(super) async fn elect(self: Rc<Self>) {
        self.spawn(self.clone().watch_the_claim());
        loop {
            let now = self.now();
            let next = self.candidate.borrow().next(now);
            match next {
                Move::Wait(until) => {
                    let pause = super::millis_up(until.since(now)).max(1);
                    self.executor().sleep(pause).await;
                }
                Move::Read => {
                    let answer = self.call(Call::ReadClaim).await;
                    let now = self.now();
                    let mut candidate = self.candidate.borrow_mut();
                    match answer {
                        Ok(Answer::Claim(lease)) => candidate.saw(lease, now),
                        _ => candidate.unanswered(now),
                    }
                }
                Move::Write(draft) => self.claim(draft).await,
            }
        }
    }

    async fn claim(self: &Rc<Self>, draft: Draft) {
        let sent = self.now();
        let answer = self.call(Call::WriteClaim(draft)).await;
        let now = self.now();
        {
            let mut candidate = self.candidate.borrow_mut();
            match answer {
                Ok(Answer::Claim(Some(lease))) => candidate.wrote(lease, sent, now),
                Err(Refusal::Conflict) => candidate.refused(),
                _ => candidate.unanswered(now),
            }
        }
        if self.may_write() && self.term.get().is_none() {
            self.begin_term();
        }
    }

    /// Stops leading when the claim has run out.
    async fn watch_the_claim(self: Rc<Self>) {
        loop {
            let until = self.candidate.borrow().valid_until();
            let now = self.now();
            let pause =
                until.map_or(200, |until| super::millis_up(until.since(now)).clamp(1, 1000));
            self.executor().sleep(pause).await;
            if self.term.get().is_some() && !self.may_write() {
                self.end_term();
            }
        }
    }
}
