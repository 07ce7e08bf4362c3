//! The readiness gate `beatkeeper.dev/published`: the value of its condition on a Pod.
//!
//! A Pod with this gate is not ready until all of its registrations have published it, so that a roll-out waits for
//! them. Nothing is decided while something is unknown: if a registration has not been decided about yet, as after a
//! start, the Pod keeps its last condition.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    objects::pod::PodView,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// The condition of a Pod is written at most once in this time.
const REST: Duration = Duration::from_secs(1);

/// The reason if the Lease of an instance that was reported before is gone.
const LEFT: &str = "Deregistered";

/// What a registration reports about a Pod, or what the condition of the Pod says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Whether the Pod is published.
    pub published: bool,
    /// The reason, as one word.
    pub reason: Cow<'static, str>,
    /// The registration that reports this; `None` if it applies to all registrations.
    pub registration: Option<String>,
}

impl Word {
    /// All registrations have published the Pod.
    fn published() -> Self {
        Self { published: true, reason: "Published".into(), registration: None }
    }

    /// The message of the condition.
    pub fn message(&self) -> String {
        match &self.registration {
            None => "every registration of this Pod has published it".to_owned(),
            Some(name) => format!(
                "ServiceRegistration {name} does not publish this Pod as ready: {}; see its status",
                self.reason
            ),
        }
    }
}

/// A registration that must publish a Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// Its name.
    pub registration: String,
    /// Whether there is a heartbeat Lease of the Pod for it.
    pub beats: bool,
}

/// What registrations report about Pods with the gate, and which Pods have to be checked.
#[derive(Debug, Default)]
pub struct Gates {
    /// By Pod and then by the name of the registration: the uid of the Pod, and the report.
    words: HashMap<Key, BTreeMap<String, (String, Word)>>,
    /// The Pods about which each registration reports.
    told_by: HashMap<Key, BTreeSet<Key>>,
    /// By namespace and name: when each Pod has to be checked.
    waiting: BTreeMap<String, BTreeMap<String, MonotonicTime>>,
    /// Pods with a condition that must not be written before this time. A key with an empty name is a whole namespace.
    resting: HashMap<Key, MonotonicTime>,
    /// The namespace that had the last turn.
    last: String,
}

impl Gates {
    /// Records the decision about a registration: its reports on the Pods with the gate, by name and uid. If a Pod was
    /// reported before and is missing now, its instance has left.
    pub fn report(
        &mut self,
        registration: &Key,
        words: Vec<(Key, String, Word)>,
        now: MonotonicTime,
    ) {
        if words.is_empty() && !self.told_by.contains_key(registration) {
            return;
        }
        let spoke_of = self.told_by.entry(registration.clone()).or_default();
        let mut silent = spoke_of.clone();
        let mut changed = Vec::new();
        for (pod, uid, word) in words {
            silent.remove(&pod);
            let word = (uid, word);
            let before = self.words.entry(pod.clone()).or_default();
            if before.get(&registration.name) != Some(&word) {
                before.insert(registration.name.clone(), word);
                changed.push(pod.clone());
            }
            spoke_of.insert(pod);
        }
        for pod in silent {
            let words = self.words.get_mut(&pod);
            if let Some((_, word)) = words.and_then(|words| words.get_mut(&registration.name))
                && word.reason != LEFT
            {
                let registration = Some(registration.name.clone());
                *word = Word { published: false, reason: LEFT.into(), registration };
                changed.push(pod);
            }
        }
        changed.iter().for_each(|pod| self.look_at(pod, now));
    }

    /// A registration is gone, or no longer reports about Pods.
    pub fn forget(&mut self, registration: &Key, now: MonotonicTime) {
        for pod in self.told_by.remove(registration).unwrap_or_default() {
            if let Some(words) = self.words.get_mut(&pod) {
                words.remove(&registration.name);
                if words.is_empty() {
                    self.words.remove(&pod);
                }
            }
            self.look_at(&pod, now);
        }
    }

    /// A Pod is gone, or no longer has the gate. This also removes it from the Pods to check, because a replica that
    /// stands by checks none.
    pub fn forget_pod(&mut self, pod: &Key) {
        if let Some(pods) = self.waiting.get_mut(&pod.namespace) {
            pods.remove(&pod.name);
            if pods.is_empty() {
                self.waiting.remove(&pod.namespace);
            }
        }
        self.resting.remove(pod);
        for registration in self.words.remove(pod).into_iter().flat_map(BTreeMap::into_keys) {
            let registration = Key::new(&pod.namespace, registration);
            if let Some(told) = self.told_by.get_mut(&registration) {
                told.remove(pod);
                if told.is_empty() {
                    self.told_by.remove(&registration);
                }
            }
        }
    }

    /// Records that a Pod has to be checked.
    pub fn look_at(&mut self, pod: &Key, now: MonotonicTime) {
        let whole = Key::new(&pod.namespace, "");
        let rests = [pod, &whole].map(|key| self.resting.get(key).copied().unwrap_or_default());
        let due = rests.into_iter().fold(now, MonotonicTime::max);
        let pods = self.waiting.entry(pod.namespace.clone()).or_default();
        pods.entry(pod.name.clone()).or_insert(due);
    }

    /// The condition of a Pod was written. The next write has to wait.
    pub fn told(&mut self, pod: &Key, now: MonotonicTime) {
        self.resting.retain(|_, until| *until > now);
        self.resting.insert(pod.clone(), now + REST);
    }

    /// During this time, no condition in this namespace can be written.
    pub fn rest(&mut self, namespace: &str, span: Duration, now: MonotonicTime) {
        self.resting.retain(|_, until| *until > now);
        self.resting.insert(Key::new(namespace, ""), now + span);
        for due in self.waiting.get_mut(namespace).into_iter().flat_map(BTreeMap::values_mut) {
            *due = (*due).max(now + span);
        }
    }

    /// The next Pod to check; if none is due, the time at which the next one is. The namespaces take turns, so that
    /// many Pods of one namespace do not delay those of others.
    pub fn next(&mut self, now: MonotonicTime) -> Result<Key, Option<MonotonicTime>> {
        let after = self.waiting.range::<str, _>((
            std::ops::Bound::Excluded(self.last.as_str()),
            std::ops::Bound::Unbounded,
        ));
        let due = |(namespace, pods): (&String, &BTreeMap<String, MonotonicTime>)| {
            let pod = pods.iter().find(|(_, due)| **due <= now)?;
            Some(Key::new(namespace, pod.0))
        };
        let found = after.chain(self.waiting.iter()).find_map(due);
        let Some(pod) = found else {
            return Err(self.waiting.values().flat_map(BTreeMap::values).min().copied());
        };
        self.last.clone_from(&pod.namespace);
        if let Some(pods) = self.waiting.get_mut(&pod.namespace) {
            pods.remove(&pod.name);
            if pods.is_empty() {
                self.waiting.remove(&pod.namespace);
            }
        }
        Ok(pod)
    }

    /// The condition that a Pod should have. `None` if the Pod already has it, has no gate, or something is not known
    /// yet.
    pub fn wanted(&self, key: &Key, pod: &PodView, claimants: &[Claimant]) -> Option<Word> {
        let gate = pod.gate.as_ref()?;
        let mut refused = None;
        for Claimant { registration, beats } in claimants {
            let word = self.words.get(key).and_then(|words| words.get(registration));
            match word.filter(|(uid, _)| *uid == pod.uid) {
                Some((_, word)) if word.published => {}
                Some((_, word)) => refused = refused.or_else(|| Some(word.clone())),
                None if *beats => return None,
                // A registration that is created later does not close a gate that is open.
                None if gate.published == Some(true) => {}
                None => {
                    refused = refused.or_else(|| {
                        let registration = Some(registration.clone());
                        Some(Word { published: false, reason: "NeverBeat".into(), registration })
                    });
                }
            }
        }
        let word = refused.unwrap_or_else(Word::published);
        let same = gate.published == Some(word.published) && gate.reason == word.reason;
        (!claimants.is_empty() && !same).then_some(word)
    }

    /// Whether nothing is stored.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let Self { words, told_by, waiting, resting, last: _ } = self;
        words.is_empty() && told_by.is_empty() && waiting.is_empty() && resting.is_empty()
    }

    /// A new term begins. Reports of an earlier term may no longer be true.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
