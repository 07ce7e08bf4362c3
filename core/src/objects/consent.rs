//! A user's consent to the adoption of hand-written addresses.

use std::{collections::BTreeSet, net::IpAddr};

use beatkeeper_api::registration::ADOPT_ANNOTATION;

/// Which hand-written addresses may be adopted and, until they beat, stay published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Consent {
    /// None.
    #[default]
    Withheld,
    /// All addresses of the Service.
    All,
    /// These addresses.
    Only(BTreeSet<IpAddr>),
    /// The annotation cannot be read: no further address may be adopted, and no adopted one is removed.
    Unreadable,
}

/// Why the annotation cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// An entry of the list is no address. Its beginning is quoted.
    #[error(
        "annotation {ADOPT_ANNOTATION}: {0:?} is not an IP address; write \"true\" for all addresses of the Service, or a list such as \"192.0.2.10,192.0.2.11\""
    )]
    NotAnAddress(String),
}

impl Consent {
    /// Reads the value of the annotation.
    ///
    /// # Errors
    /// [`ConsentError`], which says what is wrong with the value and what to write.
    pub fn read(value: Option<&str>) -> Result<Self, ConsentError> {
        let address = |text: &str| {
            let quoted = || text.trim().chars().take(64).collect();
            text.trim().parse().map_err(|_| ConsentError::NotAnAddress(quoted()))
        };
        match value.map(str::trim) {
            None | Some("false") => Ok(Self::Withheld),
            Some("true") => Ok(Self::All),
            Some(list) => Ok(Self::Only(list.split(',').map(address).collect::<Result<_, _>>()?)),
        }
    }

    /// Whether any address may be adopted.
    pub fn is_given(&self) -> bool {
        matches!(self, Self::All | Self::Only(_))
    }

    /// Whether an address may be adopted.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Only(addresses) => addresses.contains(&address),
            Self::Withheld | Self::Unreadable => false,
        }
    }

    /// Whether an adopted address stays published.
    pub fn keeps(&self, address: IpAddr) -> bool {
        *self == Self::Unreadable || self.allows(address)
    }
}
