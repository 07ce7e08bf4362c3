//! The writes of a plan, and how logs and a dry run show them.

use std::fmt;

use k8s_openapi::{
    api::{core::v1::Endpoints, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// The writes to send, in phases.
///
/// The writes of one phase do not depend on each other, and may be sent at the same time. A phase begins only after all
/// writes of the previous phase succeeded. If a write fails, the rest is planned again from the state at that time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The phases in order. There are at most two, and none of them is empty.
    pub phases: Vec<Vec<Write>>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.phases.iter().all(Vec::is_empty)
    }

    /// Leaves out an update of the Endpoints object. The next plan will contain it again. Returns whether there was
    /// one.
    pub fn leave_endpoints_as_they_are(&mut self) -> bool {
        let is_update = |write: &Write| matches!(write, Write::UpdateEndpoints(..));
        let found = self.writes().any(is_update);
        self.phases.iter_mut().for_each(|phase| phase.retain(|write| !is_update(write)));
        self.phases.retain(|phase| !phase.is_empty());
        found
    }

    /// All writes, in an order in which they may be sent.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.phases.iter().flatten()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing to write");
        }
        for (position, phase) in self.phases.iter().enumerate() {
            f.write_str(if position == 0 { "" } else { "; then " })?;
            for (position, write) in phase.iter().enumerate() {
                f.write_str(if position == 0 { "" } else { ", " })?;
                write!(f, "{write}")?;
            }
        }
        Ok(())
    }
}

/// How many endpoints a write adds, removes and changes in place. All three are zero for a write that only repairs
/// labels or owner references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Endpoints that were not in the object before.
    pub added: usize,
    /// Endpoints that are not in the object afterwards.
    pub removed: usize,
    /// Endpoints with other conditions, ports or details than before.
    pub changed: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, removed, changed } = *self;
        let parts: Vec<String> = [('+', added), ('−', removed), ('~', changed)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(sign, count)| format!("{sign}{count}"))
            .collect();
        f.write_str(if parts.is_empty() { "metadata" } else { "" })?;
        f.write_str(&parts.join(" "))
    }
}

/// One write to one object. Each write is conditional on the state that it was planned from: an update carries the
/// resourceVersion in its metadata, and a deletion has the uid and the resourceVersion as preconditions.
///
/// A slice may be written in both phases: dead endpoints are removed in the first phase, and endpoints that moved in
/// the second one. In this case the second write has to be sent with the resourceVersion that the first write returned
/// ([`Write::rebase`]). Otherwise it meets a conflict and the caller has to plan again, which is slower but harmless.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Create a slice. The API server completes its name.
    CreateSlice(EndpointSlice),
    /// Replace a slice.
    UpdateSlice(EndpointSlice, Tally),
    /// Delete a slice.
    DeleteSlice {
        /// Its name.
        name: String,
        /// Its uid, a precondition.
        uid: String,
        /// Its resourceVersion, a precondition.
        resource_version: String,
    },
    /// Create the Endpoints object.
    CreateEndpoints(Endpoints),
    /// Replace the Endpoints object.
    UpdateEndpoints(Endpoints, Tally),
    /// Delete the Endpoints object.
    DeleteEndpoints {
        /// Its name.
        name: String,
        /// Its uid, a precondition.
        uid: String,
        /// Its resourceVersion, a precondition.
        resource_version: String,
    },
}

impl Write {
    pub(super) fn delete_slice(metadata: &ObjectMeta) -> Self {
        let (name, uid, resource_version) = identity(metadata);
        Self::DeleteSlice { name, uid, resource_version }
    }

    pub(super) fn delete_endpoints(metadata: &ObjectMeta) -> Self {
        let (name, uid, resource_version) = identity(metadata);
        Self::DeleteEndpoints { name, uid, resource_version }
    }

    /// The name of the slice that is updated or deleted. None for a creation, and for writes to the Endpoints object.
    pub fn slice_name(&self) -> Option<&str> {
        match self {
            Self::UpdateSlice(slice, _) => slice.metadata.name.as_deref(),
            Self::DeleteSlice { name, .. } => Some(name),
            Self::CreateSlice(_)
            | Self::CreateEndpoints(_)
            | Self::UpdateEndpoints(..)
            | Self::DeleteEndpoints { .. } => None,
        }
    }

    /// The prefix from which the API server generates a name.
    pub fn generate_name(&self) -> Option<&str> {
        match self {
            Self::CreateSlice(slice) => slice.metadata.generate_name.as_deref(),
            _ => None,
        }
    }

    /// Whether the write concerns the Endpoints object instead of a slice.
    pub fn is_of_endpoints(&self) -> bool {
        match self {
            Self::CreateEndpoints(_) | Self::UpdateEndpoints(..) | Self::DeleteEndpoints { .. } => {
                true
            }
            Self::CreateSlice(_) | Self::UpdateSlice(..) | Self::DeleteSlice { .. } => false,
        }
    }

    /// Makes an update or a deletion conditional on another resourceVersion: the one that an earlier write of the same
    /// plan has returned for the object.
    pub fn rebase(&mut self, version: &str) {
        match self {
            Self::UpdateSlice(slice, _) => {
                slice.metadata.resource_version = Some(version.to_owned());
            }
            Self::UpdateEndpoints(endpoints, _) => {
                endpoints.metadata.resource_version = Some(version.to_owned());
            }
            Self::DeleteSlice { resource_version, .. }
            | Self::DeleteEndpoints { resource_version, .. } => {
                version.clone_into(resource_version);
            }
            Self::CreateSlice(_) | Self::CreateEndpoints(_) => {}
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSlice(slice) => {
                let prefix = slice.metadata.generate_name.as_deref().unwrap_or_default();
                write!(f, "create slice {prefix}*: +{}", slice.endpoints.len())
            }
            Self::UpdateSlice(slice, tally) => {
                write!(f, "update slice {}: {tally}", name_of(&slice.metadata))
            }
            Self::DeleteSlice { name, .. } => write!(f, "delete slice {name}"),
            Self::CreateEndpoints(endpoints) => {
                write!(f, "create endpoints {}", name_of(&endpoints.metadata))
            }
            Self::UpdateEndpoints(endpoints, tally) => {
                write!(f, "update endpoints {}: {tally}", name_of(&endpoints.metadata))
            }
            Self::DeleteEndpoints { name, .. } => write!(f, "delete endpoints {name}"),
        }
    }
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// Name, uid and resourceVersion. Every object that is read from the API server has them.
fn identity(metadata: &ObjectMeta) -> (String, String, String) {
    let ObjectMeta { name, uid, resource_version, .. } = metadata;
    let owned = |field: &Option<String>| field.clone().unwrap_or_default();
    (owned(name), owned(uid), owned(resource_version))
}
