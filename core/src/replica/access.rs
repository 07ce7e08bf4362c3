//! What the API server allows the operator to read. If it refuses something that decisions need, nothing is decided,
//! because an object that cannot be read may exist.

use std::{collections::BTreeMap, fmt};

/// The kinds that are watched in one scope: a namespace, or the whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    kinds: BTreeMap<&'static str, View>,
    times_wanting: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    need: Need,
    state: State,
}

/// Whether decisions can be made without a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Decisions need it.
    Necessary,
    /// Decisions can be made without it, but something useful is missing: the zones, which come from Nodes.
    Helpful,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Awaited,
    /// It was read to its end, and is being watched.
    Decoded,
    /// The API server says that the operator may not read it. Contains the message.
    Refused(String),
}

impl Access {
    /// Records that a kind will be read.
    pub fn expect(&mut self, kind: &'static str, need: Need) {
        self.kinds.insert(kind, View { need, state: State::Awaited });
    }

    /// Records that a kind was read to its end, or that its watch works. Returns whether this is a change.
    pub fn read(&mut self, kind: &'static str) -> bool {
        self.set(kind, State::Decoded)
    }

    /// Records that the API server refuses a kind. Returns whether this is a change.
    pub fn refused(&mut self, kind: &'static str, words: &str) -> bool {
        let was_wanting = self.is_wanting();
        let news = self.set(kind, State::Refused(words.to_owned()));
        self.times_wanting += u64::from(!was_wanting && self.is_wanting());
        news
    }

    fn set(&mut self, kind: &'static str, state: State) -> bool {
        let Some(view) = self.kinds.get_mut(kind).filter(|view| view.state != state) else {
            return false;
        };
        view.state = state;
        true
    }

    /// Whether a kind is refused.
    pub fn is_refused(&self, kind: &str) -> bool {
        self.kinds.get(kind).is_some_and(|view| matches!(view.state, State::Refused(_)))
    }

    /// Whether a kind is refused, and decisions can be made without it.
    pub fn is_dispensed_with(&self, kind: &str) -> bool {
        self.is_refused(kind) && self.kinds.get(kind).is_some_and(|view| view.need == Need::Helpful)
    }

    /// Whether a kind is refused that decisions need.
    pub fn is_wanting(&self) -> bool {
        self.refusals().any(|(_, need, _)| need == Need::Necessary)
    }

    /// How often a needed kind began to be refused. A periodic check of [`Self::is_wanting`] would miss a short
    /// refusal.
    pub fn times_wanting(&self) -> u64 {
        self.times_wanting
    }

    /// The kinds that were read or are refused, so that waiting for them is over or useless.
    pub fn answered_kinds(&self) -> impl Iterator<Item = &'static str> {
        let answered = self.kinds.iter().filter(|(_, view)| view.state != State::Awaited);
        answered.map(|(kind, _)| *kind)
    }

    /// The kinds that are refused.
    pub fn refused_kinds(&self) -> impl Iterator<Item = &'static str> {
        self.refusals().map(|(kind, _, _)| kind)
    }

    fn refusals(&self) -> impl Iterator<Item = (&'static str, Need, &str)> {
        self.kinds.iter().filter_map(|(kind, view)| match &view.state {
            State::Refused(words) => Some((*kind, view.need, words.as_str())),
            _ => None,
        })
    }

    /// The refusal in a scope, once each kind has been answered, so that one line reports all kinds.
    pub fn told(&self, namespace: Option<&str>) -> Option<Refusal> {
        let settled = self.kinds.values().all(|view| view.state != State::Awaited);
        let (_, _, words) = self.refusals().next().filter(|_| settled)?;
        Some(Refusal {
            namespace: namespace.map(str::to_owned),
            kinds: self.refused_kinds().collect(),
            wanting: self.is_wanting(),
            words: words.to_owned(),
        })
    }
}

/// What cannot be read in a scope, with the consequence and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    namespace: Option<String>,
    kinds: Vec<&'static str>,
    wanting: bool,
    words: String,
}

impl Refusal {
    /// Whether nothing is decided because of it.
    pub fn is_wanting(&self) -> bool {
        self.wanting
    }

    /// Whether it contains a kind that the reported refusal does not contain.
    pub fn adds_to(&self, told: Option<&Self>) -> bool {
        told.is_none_or(|told| self.kinds.iter().any(|kind| !told.kinds.contains(kind)))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, kinds, wanting, words } = self;
        let kinds = kinds.join(", ");
        let place =
            namespace.as_ref().map_or("any namespace".to_owned(), |it| format!("namespace {it}"));
        write!(f, "the operator may not read {kinds} in {place}: ")?;
        f.write_str(match wanting {
            true => {
                "nothing is published or pruned there until it may, and what is published stays"
            }
            false => "zones are not published until it may",
        })?;
        match namespace {
            Some(namespace) => write!(
                f,
                ". Create namespace {namespace} if it does not exist, and give the operator's ServiceAccount its rights \
                 there: helm upgrade makes a Role and a RoleBinding in each of watchNamespaces"
            )?,
            None => f.write_str(
                ". Give the operator's ServiceAccount the rights of the chart's ClusterRole: helm upgrade makes it and its \
                 ClusterRoleBinding",
            )?,
        }
        write!(f, ". The API server says: {words}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let mut access = Access::default();
        for kind in ["Leases", "Pods"] {
            access.expect(kind, Need::Necessary);
        }
        access.expect("Nodes", Need::Helpful);
        access
    }

    #[test]
    fn what_is_not_read_yet_is_not_refused() {
        let mut access = access();
        assert!(!access.is_wanting());
        assert!(access.read("Leases"));
        assert!(!access.read("Leases"), "no news");
        assert_eq!(access.told(None), None);
    }

    #[test]
    fn without_something_necessary_nothing_is_decided_until_it_is_read() {
        let mut access = access();
        assert!(access.refused("Pods", "pods is forbidden"));
        assert!(!access.refused("Pods", "pods is forbidden"), "no news");
        assert!(access.is_wanting());
        assert!(access.read("Pods"));
        assert!(!access.is_wanting());
        assert!(access.refused("Pods", "pods is forbidden"), "taken back later");
        assert!(access.is_wanting());
        access.refused("Leases", "leases is forbidden");
        assert_eq!(access.times_wanting(), 2);
    }

    #[test]
    fn without_nodes_everything_is_decided() {
        let mut access = access();
        access.refused("Nodes", "nodes is forbidden");
        assert!(access.is_dispensed_with("Nodes"));
        assert!(access.is_refused("Nodes") && !access.is_refused("Pods"));
        assert!(!access.is_dispensed_with("Pods"));
        assert!(!access.is_wanting());
        access.read("Leases");
        access.read("Pods");
        let told = access.told(None).expect("a refusal");
        assert!(!told.is_wanting());
        assert_eq!(
            told.to_string(),
            "the operator may not read Nodes in any namespace: zones are not published until it may. Give the operator's \
             ServiceAccount the rights of the chart's ClusterRole: helm upgrade makes it and its ClusterRoleBinding. The API \
             server says: nodes is forbidden"
        );
    }

    #[test]
    fn a_namespace_is_told_in_one_line_when_every_kind_has_its_answer() {
        let mut access = access();
        access.refused("Leases", "leases is forbidden");
        access.refused("Nodes", "nodes is forbidden");
        assert_eq!(access.told(Some("shop")), None, "Pods are awaited");
        access.refused("Pods", "pods is forbidden");
        let all = access.told(Some("shop")).expect("a refusal");
        assert!(all.adds_to(None));
        access.read("Pods");
        let less = access.told(Some("shop")).expect("a refusal");
        assert!(!less.adds_to(Some(&all)), "on the way to nothing");
        assert!(all.adds_to(Some(&less)));
        assert_eq!(
            all.to_string(),
            "the operator may not read Leases, Nodes, Pods in namespace shop: nothing is published or pruned there until it \
             may, and what is published stays. Create namespace shop if it does not exist, and give the operator's \
             ServiceAccount its rights there: helm upgrade makes a Role and a RoleBinding in each of watchNamespaces. The \
             API server says: leases is forbidden"
        );
    }
}
