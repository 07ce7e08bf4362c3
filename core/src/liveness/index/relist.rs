//! Whether the Leases have to be listed again after a rollback of the store.

/// Whether the Leases have to be listed again after a rollback of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Relist {
    /// No list is needed.
    #[default]
    No,
    /// A list is needed, and it must begin after this point.
    Awaited,
    /// That list is being read.
    Listing,
}

impl Relist {
    pub(super) fn begin_list(&mut self) {
        if *self == Self::Awaited {
            *self = Self::Listing;
        }
    }

    /// Ends a list. Returns whether it was the one that was awaited.
    pub(super) fn end_list(&mut self) -> bool {
        let was = *self == Self::Listing;
        if was {
            *self = Self::No;
        }
        was
    }
}
