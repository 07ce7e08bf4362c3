//! The names that Kubernetes accepts, and the default name of an instance.

use beatkeeper_api::heartbeat::INSTANCE_NAME_MAX;

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No registration can have this name.
    #[error(
        "{0:?} cannot name a ServiceRegistration: it must be a DNS label of at most 63 lower-case letters, \
         digits and '-', such as greeter"
    )]
    Registration(String),
    /// No Lease can have this name.
    #[error(
        "{0:?} cannot name an instance: choose one of at most {INSTANCE_NAME_MAX} \
         lower-case letters, digits, '-' and '.', such as vm-1"
    )]
    Instance(String),
    /// No annotation can have this key.
    #[error(
        "{0:?} cannot be a key of metadata: choose at most 63 letters, digits, '-', '_' and '.', such as \
         shelf"
    )]
    MetadataKey(String),
}

/// Checks the name of a registration: it must be a DNS label.
///
/// # Errors
/// [`NameError::Registration`].
pub fn registration(name: &str) -> Result<(), NameError> {
    let fits = name.len() <= 63 && !name.contains('.') && is_subdomain(name);
    if fits { Ok(()) } else { Err(NameError::Registration(name.to_owned())) }
}

/// Checks the name of an instance: together with the name of its registration it names a Lease.
///
/// # Errors
/// [`NameError::Instance`].
pub fn instance(name: &str) -> Result<(), NameError> {
    let fits = name.len() <= INSTANCE_NAME_MAX && is_subdomain(name);
    if fits { Ok(()) } else { Err(NameError::Instance(name.to_owned())) }
}

/// Checks a key of metadata: it is the name part of an annotation's key.
///
/// # Errors
/// [`NameError::MetadataKey`].
pub fn metadata_key(key: &str) -> Result<(), NameError> {
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let fits = key.len() <= 63
        && end(key.as_bytes().first())
        && end(key.as_bytes().last())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fits { Ok(()) } else { Err(NameError::MetadataKey(key.to_owned())) }
}

/// Returns the host name in lower case: DNS ignores case, and Kubernetes accepts lower case only.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// Kubernetes limits the length of a subdomain as a whole, not of its labels.
fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|label| {
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.as_bytes().first().is_some_and(alphanumeric)
            && label.as_bytes().last().is_some_and(alphanumeric)
            && label.bytes().all(|byte| alphanumeric(&byte) || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_as_leases_are() {
        for name in ["vm-1", "vm-1.example.com", "7"] {
            assert_eq!(instance(name), Ok(()), "{name}");
        }
        for name in ["VM_1", "a..b", "-a", "a.", "", &"x".repeat(190)] {
            let error = instance(name).expect_err(name).to_string();
            assert!(error.ends_with("such as vm-1"), "{error}");
        }
    }

    #[test]
    fn a_registration_is_a_label() {
        assert_eq!(registration("greeter"), Ok(()));
        for name in ["a.b", "Greeter", "", &"x".repeat(64)] {
            let error = registration(name).expect_err(name).to_string();
            assert!(error.ends_with("such as greeter"), "{error}");
        }
    }

    #[test]
    fn a_key_of_metadata_is_what_an_annotation_takes() {
        assert_eq!(metadata_key("Shelf_7.b"), Ok(()));
        for key in ["", "a/b", "_a", "ä", &"x".repeat(64)] {
            assert!(metadata_key(key).is_err(), "{key}");
        }
    }
}
