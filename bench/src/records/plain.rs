//! Lines about plain Kubernetes, without Beatkeeper.

use serde::{Deserialize, Serialize};

use super::Record;

/// An endpoint of a Pod that died, and that the watcher saw become not ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Out {
    /// The number of the death among those of its kind, from 1. All endpoints of one dead node have the same
    /// number.
    pub death: u32,
    /// How it died.
    pub how: How,
    /// The Pod.
    pub pod: String,
    /// Seconds from the death until the watcher saw that the endpoint is not ready.
    pub seconds: f64,
}

impl Record for Out {
    const FILE: &'static str = "plain.csv";
}

/// A way to die that leaves all connections open, but answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The processes of one Pod are suspended.
    Hang,
    /// The kubelet and all Pods of a node are suspended.
    Node,
}
