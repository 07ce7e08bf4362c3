//! What tells one state of an object from another.

use std::sync::Arc;

/// The token of an instance: any change of it at a higher resourceVersion is a beat. Its value is never compared with
/// a clock (L1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// The uid of the Lease. A Lease that was deleted and created again is a beat, too.
    pub uid: Arc<str>,
    /// spec.renewTime in microseconds; a digest of the text if it is not a time that can be parsed; `None` if the
    /// instance has never beaten. Only for comparison with another token.
    pub renewed: Option<i64>,
}

/// A resourceVersion. Kubernetes makes them comparable within a resource (KEP-5504). One that is not a number counts
/// as the newest; no supported API server writes such a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// Reads a resourceVersion.
    pub fn of(text: Option<&str>) -> Self {
        Self(text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
    }
}

impl Version {
    /// The newer one of two versions. A version that is not a number is ignored.
    pub fn newer_of(self, other: Self) -> Self {
        if other.0 == u64::MAX { self } else { self.max(other) }
    }
}
