//! The kinds of objects that belong to registrations.

/// A kind of object that belongs to registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Kind {
    ServiceRegistration,
    Lease,
    Pod,
    EndpointSlice,
    Service,
    Endpoints,
}

impl Kind {
    /// The kinds that are read in addition to the registrations.
    pub const OTHERS: [Self; 5] =
        [Self::Lease, Self::Pod, Self::EndpointSlice, Self::Service, Self::Endpoints];

    /// The name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceRegistration => "ServiceRegistration",
            Self::Lease => "Lease",
            Self::Pod => "Pod",
            Self::EndpointSlice => "EndpointSlice",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
        }
    }
}
