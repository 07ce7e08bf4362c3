//! The readiness gate `beatkeeper.dev/published`: what the condition of a Pod with this gate says.
//!
//! A Pod with this gate is not ready before all of its registrations have published it, so that a
//! roll-out waits for them. Nothing is decided from ignorance: where a registration has not been decided
//! about yet, as after a start, the last condition of a Pod stays.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{index::Key, moment::Moment, pod::PodView};

/// The condition of a Pod changes at most this often.
const REST: Duration = Duration::from_secs(1);

/// Why an instance that was spoken of is published no more: its Lease is gone.
const LEFT: &str = "Deregistered";

/// What a registration says of a Pod, and what the Pod's condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Whether it is published.
    pub published: bool,
    /// Why, or why not: one word.
    pub reason: Cow<'static, str>,
    /// The registration that says so; none when all do.
    pub registration: Option<String>,
}

impl Word {
    /// All have published it.
    fn published() -> Self {
        Self { published: true, reason: "Published".into(), registration: None }
    }

    /// For people.
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

/// A registration that a Pod has to be published by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// Its name.
    pub registration: String,
    /// Whether there is a heartbeat Lease of the Pod for it.
    pub beats: bool,
}

/// What registrations say of Pods that ask, and which Pods are to be looked at.
#[derive(Debug, Default)]
pub struct Gates {
    /// By Pod, then by the name of the registration: the uid of the Pod, and whether and why.
    words: HashMap<Key, BTreeMap<String, (String, Word)>>,
    /// The Pods of which a registration says something.
    told_by: HashMap<Key, BTreeSet<Key>>,
    /// By namespace: when each is to be looked at.
    waiting: BTreeMap<String, BTreeMap<String, Moment>>,
    /// Pods, or with an empty name whole namespaces, whose conditions are not written before this time.
    resting: HashMap<Key, Moment>,
    /// The namespace that had the last turn.
    last: String,
}

impl Gates {
    /// A registration has been decided about, and says this of the Pods that ask, by name and uid. Of those
    /// that it spoke of before and does not any more, the instance has left.
    pub fn report(&mut self, registration: &Key, words: Vec<(Key, String, Word)>, now: Moment) {
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

    /// A registration is gone, or says nothing of Pods any more.
    pub fn forget(&mut self, registration: &Key, now: Moment) {
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

    /// A Pod is gone, or does not ask any more. Also one that waits to be looked at: a replica that stands by looks at none.
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

    /// A Pod is to be looked at.
    pub fn look_at(&mut self, pod: &Key, now: Moment) {
        let whole = Key::new(&pod.namespace, "");
        let rests = [pod, &whole].map(|key| self.resting.get(key).copied().unwrap_or_default());
        let due = rests.into_iter().fold(now, Moment::max);
        let pods = self.waiting.entry(pod.namespace.clone()).or_default();
        pods.entry(pod.name.clone()).or_insert(due);
    }

    /// A Pod's condition has been written. The next write waits.
    pub fn told(&mut self, pod: &Key, now: Moment) {
        self.resting.retain(|_, until| *until > now);
        self.resting.insert(pod.clone(), now + REST);
    }

    /// For this span no condition in this namespace can be written.
    pub fn rest(&mut self, namespace: &str, span: Duration, now: Moment) {
        self.resting.retain(|_, until| *until > now);
        self.resting.insert(Key::new(namespace, ""), now + span);
        for due in self.waiting.get_mut(namespace).into_iter().flat_map(BTreeMap::values_mut) {
            *due = (*due).max(now + span);
        }
    }

    /// The Pod whose turn it is: the namespaces take turns, so that many Pods of one do not keep those of
    /// others waiting. Otherwise when the next is due.
    pub fn next(&mut self, now: Moment) -> Result<Key, Option<Moment>> {
        let after = self.waiting.range::<str, _>((
            std::ops::Bound::Excluded(self.last.as_str()),
            std::ops::Bound::Unbounded,
        ));
        let due = |(namespace, pods): (&String, &BTreeMap<String, Moment>)| {
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

    /// What a Pod's condition should say. None where it says that already, where the Pod has no gate, or where
    /// something is not known yet.
    pub fn wanted(&self, key: &Key, pod: &PodView, claimants: &[Claimant]) -> Option<Word> {
        let gate = pod.gate.as_ref()?;
        let mut refused = None;
        for Claimant { registration, beats } in claimants {
            let word = self.words.get(key).and_then(|words| words.get(registration));
            match word.filter(|(uid, _)| *uid == pod.uid) {
                Some((_, word)) if word.published => {}
                Some((_, word)) => refused = refused.or_else(|| Some(word.clone())),
                None if *beats => return None,
                // A registration that is made later shuts no gate that is open.
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

    /// Whether nothing is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let Self { words, told_by, waiting, resting, last: _ } = self;
        words.is_empty() && told_by.is_empty() && waiting.is_empty() && resting.is_empty()
    }

    /// A new term: what was said in an earlier one is not known to hold.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
