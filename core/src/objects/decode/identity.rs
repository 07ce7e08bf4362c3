//! The fields that identify an object of any kind.

use beatkeeper_api::keep::Keep::{self, All, Each, Entries, Fields};

use crate::objects::marks::{OWNED_BY_ANNOTATION, SERVICE_NAME_LABEL};

/// The fields that identify an object and its owner.
pub(super) const IDENTITY: Keep = Fields(&[(
    "metadata",
    Fields(&[
        ("name", All),
        ("namespace", All),
        ("resourceVersion", All),
        ("labels", Entries(|name| name == SERVICE_NAME_LABEL)),
        ("annotations", Entries(|name| name == OWNED_BY_ANNOTATION)),
        ("ownerReferences", Each(&OWNER)),
    ]),
)]);

/// The fields that are kept of an owner reference.
pub(super) const OWNER: Keep = Fields(&[
    ("apiVersion", All),
    ("kind", All),
    ("name", All),
    ("uid", All),
    ("controller", All),
    ("blockOwnerDeletion", All),
]);
