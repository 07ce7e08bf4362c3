//! Which objects are read.

use std::fmt;

use beatkeeper::kube_client::list::Collection;
use kube::{Client, Resource};

use crate::flags::Selection;

/// One namespace, or all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// All namespaces.
    #[default]
    All,
    /// This namespace.
    Namespace(String),
}

impl Scope {
    /// The namespace, if there is only one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(namespace),
        }
    }

    /// The objects of a kind in this scope.
    pub fn collection<K: Resource<DynamicType = ()>>(&self, client: &Client) -> Collection {
        Collection::of::<K>(client, self.namespace())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all namespaces"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
        }
    }
}

/// Which registrations are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Where.
    pub scope: Scope,
    /// The name of the only one; `None` for all.
    pub name: Option<String>,
    /// Their labels.
    pub labels: Option<String>,
}

impl Wanted {
    /// What the flags select, with the namespace to look at otherwise.
    pub fn of(selection: &Selection, namespace: &str) -> Self {
        let scope = match selection.all_namespaces {
            true => Scope::All,
            false => Scope::Namespace(namespace.to_owned()),
        };
        Self { scope, name: selection.name.clone(), labels: selection.selector.clone() }
    }
}
