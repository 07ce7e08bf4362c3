//! Lines about what plain Kubernetes does by itself, without Beatkeeper.

use serde::{Deserialize, Serialize};

use super::Record;

/// An endpoint of a Pod that died, and was seen to be no longer ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Out {
    /// The number of the death among those of its kind, from 1. Endpoints of one dead node share theirs.
    pub death: u32,
    /// How it died.
    pub how: How,
    /// The Pod.
    pub pod: String,
    /// Seconds from the death to when the watcher saw that it is not ready.
    pub seconds: f64,
}

impl Record for Out {
    const FILE: &'static str = "plain.csv";
}

/// A way to die that leaves all connections as they are, and answers nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The processes of one Pod stand still.
    Hang,
    /// The kubelet and all Pods of a node stand still.
    Node,
}
