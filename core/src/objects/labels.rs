//! Labels, stored only as far as selectors need them.
//!
//! A Pod may have more than a thousand labels with half a megabyte in total, and all Pods are watched. A selector asks
//! whether a label exists, or whether it has a certain value. A hash of each is enough for that. The hash function has
//! a random key, so that no user can choose labels with equal hashes.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use kube::core::{Expression, Selector};

static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The labels of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// For each label, sorted: the hash of its key, and that of its key and value.
    numbers: Box<[(u64, u64)]>,
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(labels: &BTreeMap<String, String>) -> Self {
        let number = |(key, value): (&String, &String)| (number(key), number((&**key, &**value)));
        let mut numbers: Box<[_]> = labels.iter().map(number).collect();
        numbers.sort_unstable();
        Self { numbers }
    }
}

fn number(what: impl std::hash::Hash) -> u64 {
    KEYED.hash_one(what)
}

impl Labels {
    fn has(&self, key: u64) -> bool {
        self.numbers.binary_search_by_key(&key, |(known, _)| *known).is_ok()
    }

    fn is(&self, label: (u64, u64)) -> bool {
        self.numbers.binary_search(&label).is_ok()
    }
}

/// A selector, in the form that is compared with [`Labels`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMatch(Box<[Wanted]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    OneOf(Box<[(u64, u64)]>),
    NoneOf(Box<[(u64, u64)]>),
    Key(u64),
    NoKey(u64),
}

impl From<Selector> for LabelMatch {
    fn from(selector: Selector) -> Self {
        let label = |key: &String, value: &String| (number(key), number((&**key, &**value)));
        let wanted = |expression| match expression {
            Expression::In(key, values) => {
                Wanted::OneOf(values.iter().map(|value| label(&key, value)).collect())
            }
            Expression::NotIn(key, values) => {
                Wanted::NoneOf(values.iter().map(|value| label(&key, value)).collect())
            }
            Expression::Equal(key, value) => Wanted::OneOf([label(&key, &value)].into()),
            Expression::NotEqual(key, value) => Wanted::NoneOf([label(&key, &value)].into()),
            Expression::Exists(key) => Wanted::Key(number(key)),
            Expression::DoesNotExist(key) => Wanted::NoKey(number(key)),
        };
        Self(selector.into_iter().map(wanted).collect())
    }
}

impl LabelMatch {
    /// Whether it selects everything.
    pub fn selects_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|wanted| match wanted {
            Wanted::OneOf(some) => some.iter().any(|label| labels.is(*label)),
            Wanted::NoneOf(some) => !some.iter().any(|label| labels.is(*label)),
            Wanted::Key(key) => labels.has(*key),
            Wanted::NoKey(key) => !labels.has(*key),
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use kube::core::SelectorExt;
    use proptest::{
        collection::{btree_map, vec},
        prelude::*,
    };
    use serde_json::json;

    use super::*;

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just(String::new()), "[a-c]{1,2}"]
    }

    proptest! {
        #[test]
        fn numbers_answer_a_selector_as_the_labels_do(
            labels in btree_map(word(), word(), 0..4),
            wanted in btree_map(word(), word(), 0..2),
            expressions in vec((word(), 0..4_usize, vec(word(), 1..3)), 0..3),
        ) {
            let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
            let expressions: Vec<_> = expressions
                .into_iter()
                .map(|(key, operator, values)| {
                    let values = if operator < 2 { json!(values) } else { json!([]) };
                    json!({ "key": key, "operator": operators[operator], "values": values })
                })
                .collect();
            let selector = json!({ "matchLabels": wanted, "matchExpressions": expressions });
            let selector: LabelSelector = serde_json::from_value(selector).expect("a selector");
            let selector = Selector::try_from(selector).expect("one that can be read");
            let expected = selector.matches(&labels);
            prop_assert_eq!(LabelMatch::from(selector).matches(&Labels::from(&labels)), expected);
        }
    }

    #[test]
    fn a_thousand_labels_of_the_longest_take_a_few_kilobytes() {
        let label = |number| {
            (format!("{number:04}.{}/{}", "d".repeat(240), "n".repeat(60)), "v".repeat(63))
        };
        let labels: BTreeMap<String, String> = (0..1520).map(label).collect();
        let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes > 500_000);
        assert!(size_of_val(&*Labels::from(&labels).numbers) < 25_000);
    }
}
