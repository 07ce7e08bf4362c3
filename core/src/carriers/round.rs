//! The list of carriers in the election's Lease, and the round with which a term begins (G5).
//!
//! A leader acknowledges the beats of a gateway only after it has written the gateway's name into the election's Lease.
//! So the next leader knows each gateway that may have accepted beats, even one that it never saw. It asks them all
//! for what it lacks. A gateway that does not answer may have accepted beats that no living replica holds: a *loss*.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    carriers::frames::{Incarnation, Question, Term},
    vocabulary::monotonic_time::MonotonicTime,
};

/// How long a leader waits for the answers of the listed gateways.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// A term of this replica.
#[derive(Debug)]
pub struct Round {
    term: Term,
    began: MonotonicTime,
    /// The first question of this term. Answers to earlier ones say nothing about the end of the term before.
    first: Question,
    /// Whether it is not known which gateways were listed.
    unknown: bool,
    /// The listed gateways that have not answered yet.
    awaited: BTreeSet<Incarnation>,
    /// What the election's Lease lists, as last written or read.
    listed: BTreeSet<Incarnation>,
    /// Whether it has a list. One without gateways is a list, too: it spares the next term a loss.
    has_list: bool,
    /// Gateways that have ended, with the moment from which their name is kept for one longest ttl.
    ended: BTreeMap<Incarnation, MonotonicTime>,
}

impl Round {
    /// A term begins. `listed` is what the election's Lease listed when this replica claimed it; `None` if it had no
    /// list, because it was deleted: then any gateway may have accepted beats. Those in `in_order`
    /// have told this replica that they have ended, so it lacks none of their beats. `first` is the next question.
    pub fn begin(
        term: Term,
        listed: Option<BTreeSet<Incarnation>>,
        in_order: &BTreeSet<Incarnation>,
        first: Question,
        now: MonotonicTime,
    ) -> Self {
        let (unknown, has_list) = (listed.is_none(), listed.is_some());
        let listed = listed.unwrap_or_default();
        let awaited = listed.difference(in_order).cloned().collect();
        let ended = listed.intersection(in_order).map(|ended| (ended.clone(), now)).collect();
        Self { term, began: now, first, unknown, awaited, listed, has_list, ended }
    }

    /// The term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether a gateway that may have accepted beats has not answered. Until then, no silence counts.
    pub fn is_open(&self) -> bool {
        self.unknown || !self.awaited.is_empty()
    }

    /// Whether this gateway has still to answer.
    pub fn awaits(&self, carrier: &Incarnation) -> bool {
        self.awaited.contains(carrier)
    }

    /// A gateway has answered a question. One that has answered too late, and was taken for lost, carries again: its
    /// name stays for a longest ttl after its real end.
    pub fn answered(&mut self, question: Question, carrier: &Incarnation) {
        if question >= self.first {
            self.awaited.remove(carrier);
            self.ended.remove(carrier);
        }
    }

    /// Ends the wait. Returns the end of the loss if a gateway has not answered.
    ///
    /// The loss ends a second after the term began. What its predecessors acknowledged was sent before that.
    pub fn close(&mut self, now: MonotonicTime) -> Option<MonotonicTime> {
        if !self.is_open() || now < self.began + ANSWERED_WITHIN {
            return None;
        }
        let end = self.began + ANSWERED_WITHIN;
        self.unknown = false;
        for lost in std::mem::take(&mut self.awaited) {
            self.ended.insert(lost, end);
        }
        Some(end)
    }

    /// When [`Self::close`] has to be called.
    pub fn closes_at(&self) -> Option<MonotonicTime> {
        self.is_open().then(|| self.began + ANSWERED_WITHIN)
    }

    /// A gateway has ended, or is taken for dead.
    pub fn ended(&mut self, carrier: &Incarnation, now: MonotonicTime) {
        self.ended.insert(carrier.clone(), now);
    }

    /// A gateway carries: one that was taken for dead has returned.
    pub fn carries(&mut self, carrier: &Incarnation) {
        self.ended.remove(carrier);
    }

    /// Whether this is to be written. Where there was no list, an empty one is written a longest ttl after the loss:
    /// until then, the next leader may lack beats of gateways that no list named.
    pub fn has_to_write(
        &self,
        wanted: &BTreeSet<Incarnation>,
        longest_ttl: Duration,
        now: MonotonicTime,
    ) -> bool {
        let is_settled = now >= self.began + ANSWERED_WITHIN + longest_ttl;
        *wanted != self.listed || (!self.has_list && is_settled)
    }

    /// Whether the beats of this gateway may be acknowledged: its name is in the election's Lease.
    pub fn lists(&self, carrier: &Incarnation) -> bool {
        self.listed.contains(carrier)
    }

    /// What the election's Lease has to list: the gateways that carry, and for one longest ttl those that have ended,
    /// because the next leader may lack their last beats.
    pub fn wanted<'a>(
        &self,
        carrying: impl Iterator<Item = &'a Incarnation>,
        longest_ttl: Duration,
        now: MonotonicTime,
    ) -> BTreeSet<Incarnation> {
        let kept = self.listed.iter().filter(|carrier| {
            self.ended.get(carrier).is_none_or(|ended| now < *ended + longest_ttl)
        });
        kept.cloned().chain(carrying.cloned()).collect()
    }

    /// The list is about to be written. From now on, no beats of a gateway that it leaves out are acknowledged.
    pub fn draft(&mut self, list: &BTreeSet<Incarnation>) {
        self.listed.retain(|carrier| list.contains(carrier));
    }

    /// The list has been written.
    pub fn written(&mut self, listed: BTreeSet<Incarnation>) {
        self.ended.retain(|carrier, _| listed.contains(carrier));
        self.listed = listed;
        self.has_list = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    fn carrier(epoch: u64) -> Incarnation {
        Incarnation { pod: "pod".into(), epoch }
    }

    fn list(epochs: &[u64]) -> BTreeSet<Incarnation> {
        epochs.iter().copied().map(carrier).collect()
    }

    /// A term that begins at second 100 with these gateways in the list.
    fn begun(listed: &[u64], in_order: &[u64]) -> Round {
        Round::begin(Term(3), Some(list(listed)), &list(in_order), Question(50), at(100))
    }

    #[test]
    fn a_round_ends_when_each_listed_gateway_has_answered_a_question_of_the_term() {
        let mut round = begun(&[1, 2], &[]);
        round.answered(Question(49), &carrier(1));
        assert!(round.awaits(&carrier(1)), "the question was of the time before");
        round.answered(Question(50), &carrier(1));
        round.answered(Question(51), &carrier(2));
        assert!(!round.is_open());
        assert_eq!(round.close(at(200)), None);
    }

    #[test]
    fn a_gateway_that_does_not_answer_within_a_second_is_a_loss_up_to_then() {
        let mut round = begun(&[1, 2], &[]);
        round.answered(Question(50), &carrier(1));
        assert_eq!((round.closes_at(), round.close(at(100))), (Some(at(101)), None));
        assert_eq!(round.close(at(107)), Some(at(101)));
        assert!(!round.is_open());
        assert_eq!(round.close(at(108)), None, "it is told once");
    }

    #[test]
    fn another_epoch_does_not_answer_for_the_one_before() {
        let mut round = begun(&[1], &[]);
        round.answered(Question(50), &carrier(2));
        assert!(round.is_open());
    }

    #[test]
    fn a_gateway_that_has_said_that_it_ends_is_not_awaited() {
        assert!(!begun(&[1], &[1]).is_open());
    }

    #[test]
    fn a_name_stays_in_the_list_for_a_longest_ttl_after_its_end() {
        let mut round = begun(&[1], &[]);
        round.answered(Question(50), &carrier(1));
        round.ended(&carrier(1), at(110));
        let carrying = [carrier(2)];
        assert_eq!(round.wanted(carrying.iter(), TTL, at(139)), list(&[1, 2]));
        assert_eq!(round.wanted(carrying.iter(), TTL, at(140)), list(&[2]));
    }

    #[test]
    fn a_gateway_that_answers_after_it_was_taken_for_lost_stays_until_its_real_end() {
        let mut round = begun(&[1], &[]);
        assert_eq!(round.close(at(101)), Some(at(101)));
        round.answered(Question(60), &carrier(1));
        round.ended(&carrier(1), at(125));
        assert_eq!(round.wanted([].iter(), TTL, at(150)), list(&[1]));
    }

    #[test]
    fn beats_of_a_gateway_are_acknowledged_once_its_name_is_written() {
        let mut round = begun(&[], &[]);
        assert!(!round.lists(&carrier(1)));
        round.written(list(&[1]));
        assert!(round.lists(&carrier(1)));
    }

    #[test]
    fn without_a_list_any_gateway_may_have_accepted_beats() {
        let mut round = Round::begin(Term(0), None, &list(&[]), Question(50), at(100));
        assert!(round.is_open());
        assert_eq!(round.close(at(101)), Some(at(101)));
        assert!(!round.is_open());
    }

    #[test]
    fn an_empty_list_is_written_if_there_was_none() {
        let mut round = Round::begin(Term(0), None, &list(&[]), Question(50), at(100));
        assert!(!round.has_to_write(&list(&[]), TTL, at(130)));
        assert!(round.has_to_write(&list(&[]), TTL, at(131)));
        round.written(list(&[]));
        assert!(!round.has_to_write(&list(&[]), TTL, at(132)));
        assert!(round.has_to_write(&list(&[1]), TTL, at(132)));
        assert!(!begun(&[], &[]).has_to_write(&list(&[]), TTL, at(200)));
    }

    #[test]
    fn a_gateway_that_has_returned_is_not_forgotten_for_its_earlier_end() {
        let mut round = begun(&[1], &[]);
        round.answered(Question(50), &carrier(1));
        round.ended(&carrier(1), at(110));
        round.carries(&carrier(1));
        assert_eq!(round.wanted([].iter(), TTL, at(150)), list(&[1]));
    }

    #[test]
    fn a_gateway_that_a_draft_leaves_out_is_not_acknowledged_any_more() {
        let mut round = begun(&[1, 2], &[]);
        round.draft(&list(&[2]));
        assert!(!round.lists(&carrier(1)) && round.lists(&carrier(2)));
    }
}
