//! The part of a decision that is reported.
//!
//! A report may wait for seconds, and several may wait at a time. There may be thousands of instances. So for each,
//! only what an event may need is kept.

use std::net::IpAddr;

use beatkeeper_api::{InstanceState, status::LISTED_INSTANCES_MAX};

use crate::{
    decide::verdict::Verdict,
    liveness::index::{Index, Provenance},
    vocabulary::{
        address::AddressSet, instance::InstanceName, key::Key, monotonic_time::MonotonicTime,
        reason::Reason,
    },
};

/// What to report of a decision that was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionSummary {
    /// How many instances are decided to be ready and are published.
    pub ready: usize,
    /// The instances that a status lists: those that a person should look at first, each group ordered by name.
    pub listed: Vec<ListedInstance>,
    /// All instances, ordered by name.
    pub lines: Vec<SummaryLine>,
}

/// What a status says of an instance in addition to its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedInstance {
    /// The index of its line in [`DecisionSummary::lines`].
    pub line: usize,
    /// Its addresses, as far as they are known.
    pub addresses: Box<[IpAddr]>,
    /// When its last beat was seen.
    pub last_beat: Option<MonotonicTime>,
}

/// What an event may say of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryLine {
    /// Its name.
    pub instance: InstanceName,
    /// Its state.
    pub state: InstanceState,
    /// The reason for the state.
    pub reason: Reason,
    /// The reason in words.
    pub message: String,
    /// The processes that claim its name, if there are several.
    pub rival: Option<String>,
}

#[cfg(test)]
impl SummaryLine {
    /// The line of an instance that beats, without a message.
    pub(super) fn beating(instance: &str, state: InstanceState) -> Self {
        let (reason, message) = (Reason::Beating, String::new());
        Self { instance: instance.into(), state, reason, message, rival: None }
    }
}

/// Brings the last beats up to date that a status will tell: those in verdicts that stand may be earlier ones.
pub fn tell_last_beats(verdicts: &mut [Verdict], index: &Index, registration: &Key) {
    let troubled = verdicts.iter().filter(|verdict| verdict.is_troubled()).count();
    let mut left = [true, false].map(|is_troubled| match is_troubled {
        true => LISTED_INSTANCES_MAX,
        false => LISTED_INSTANCES_MAX.saturating_sub(troubled),
    });
    for verdict in verdicts {
        let left = &mut left[usize::from(!verdict.is_troubled())];
        if *left == 0 {
            continue;
        }
        *left -= 1;
        let lease = verdict.lease_decision().map(|decision| &decision.lease);
        if let Some(record) = lease.and_then(|lease| index.record(registration, lease))
            && record.provenance == Provenance::Changed
            && record.token.renewed.is_some()
        {
            verdict.last_beat = Some(record.seen);
        }
    }
}

impl DecisionSummary {
    /// Makes the account from verdicts in the order of their names. An instance that was decided to be ready may be
    /// missing in `published`: the registration may be stalled, or a write may have failed.
    pub fn of(verdicts: Vec<Verdict>, published: &AddressSet) -> Self {
        debug_assert!(
            verdicts.is_sorted_by(|a, b| a.instance < b.instance),
            "each has one verdict, in the order of the names"
        );
        let is_ready =
            |verdict: &&Verdict| verdict.state == InstanceState::Ready && verdict.is_at(published);
        let ready = verdicts.iter().filter(is_ready).count();
        let is_troubled = |place: &usize| verdicts[*place].is_troubled();
        let (first, then): (Vec<usize>, Vec<usize>) = (0..verdicts.len()).partition(is_troubled);
        // A report keeps the list, so no extra capacity is allocated.
        let mut listed = Vec::with_capacity(verdicts.len().min(LISTED_INSTANCES_MAX));
        listed.extend(first.into_iter().chain(then).take(LISTED_INSTANCES_MAX).map(|line| {
            let Verdict { placement, last_beat, .. } = &verdicts[line];
            let addresses = placement.iter().flat_map(|placement| &placement.addresses);
            ListedInstance { line, addresses: addresses.copied().collect(), last_beat: *last_beat }
        }));
        // `collect` would reuse the allocation of the verdicts, which is larger than needed.
        let mut lines = Vec::with_capacity(verdicts.len());
        lines.extend(verdicts.into_iter().map(|verdict| {
            let Verdict { instance, state, reason, message, rival, .. } = verdict;
            SummaryLine { instance, state, reason, message, rival }
        }));
        Self { ready, listed, lines }
    }

    /// The instances that a status lists, in its order, with their lines.
    pub fn listed(&self) -> impl Iterator<Item = (&SummaryLine, &ListedInstance)> {
        self.listed.iter().map(|listed| (&self.lines[listed.line], listed))
    }

    /// The instances with a name that several processes claim.
    pub fn contested(&self) -> impl Iterator<Item = (&SummaryLine, &str)> {
        self.lines.iter().filter_map(|line| Some((line, line.rival.as_deref()?)))
    }

    /// The first instance in this state.
    pub fn first(&self, state: InstanceState) -> Option<&SummaryLine> {
        self.lines.iter().find(|line| line.state == state)
    }

    /// How many instances are in this state.
    pub fn count(&self, state: InstanceState) -> usize {
        self.lines.iter().filter(|line| line.state == state).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{endpoint::PortSet, placement::Placement};

    fn verdict(number: u8, state: InstanceState) -> Verdict {
        let placement = Placement {
            addresses: vec![[192, 0, 2, number].into()],
            ports: PortSet::new(Vec::new()),
            node_name: None,
            zone: None,
            hostname: None,
            pod: None,
            kubelet_ready: true,
        };
        Verdict {
            instance: format!("vm-{number:03}").as_str().into(),
            state,
            reason: Reason::Beating,
            message: String::new(),
            placement: Some(placement),
            last_beat: None,
            lease: None,
            rival: None,
            requeue_at: None,
        }
    }

    #[test]
    fn the_troubled_are_listed_first_and_only_the_published_counted_as_ready() {
        let state = |number| match number {
            120 => InstanceState::Held,
            150 => InstanceState::Expired,
            _ => InstanceState::Ready,
        };
        let verdicts = (0..200).map(|number| verdict(number, state(number))).collect();
        let published = (0..=120).map(|number| [192, 0, 2, number].into()).collect();
        let account = DecisionSummary::of(verdicts, &published);
        let listed: Vec<&str> = account.listed().map(|(line, _)| &*line.instance).collect();
        assert_eq!(listed.len(), LISTED_INSTANCES_MAX);
        assert_eq!(listed[..4], ["vm-120", "vm-150", "vm-000", "vm-001"]);
        assert_eq!(*account.listed[1].addresses, [IpAddr::from([192, 0, 2, 150])]);
        let held = account.first(InstanceState::Held);
        assert_eq!(held.map(|line| &*line.instance), Some("vm-120"));
        assert_eq!((account.ready, account.lines.len()), (120, 200));
        assert_eq!(account.count(InstanceState::Expired), 1);
    }
}
