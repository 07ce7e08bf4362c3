//! The name of an instance.

use std::{cmp::Ordering, fmt, ops::Deref, sync::Arc};

/// Name of an instance: the end of its Lease's name, which shares the text of the Lease, or a text of its own. Each
/// decision uses thousands of names and keeps them until the next decision, so they are not copied.
#[derive(Clone)]
pub struct InstanceName {
    text: Arc<str>,
    from: usize,
}

impl InstanceName {
    /// The last `length` bytes of the name of a Lease; the whole name if it is shorter.
    pub fn end_of(lease: &Arc<str>, length: usize) -> Self {
        let from = lease.len().saturating_sub(length);
        debug_assert!(lease.is_char_boundary(from), "not an end of {lease}");
        Self { text: lease.clone(), from }
    }
}

impl Deref for InstanceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text[self.from..]
    }
}

impl From<&str> for InstanceName {
    fn from(name: &str) -> Self {
        Self { text: name.into(), from: 0 }
    }
}

impl Ord for InstanceName {
    fn cmp(&self, other: &Self) -> Ordering {
        match Arc::ptr_eq(&self.text, &other.text) && self.from == other.from {
            // Avoids reading the texts from memory.
            true => Ordering::Equal,
            false => str::cmp(self, other),
        }
    }
}

impl PartialOrd for InstanceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InstanceName {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for InstanceName {}

impl PartialEq<str> for InstanceName {
    fn eq(&self, other: &str) -> bool {
        &**self == other
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ordered_by_its_text_whatever_it_is_the_end_of() {
        let lease: Arc<str> = "greeter.vm-1".into();
        let name = InstanceName::end_of(&lease, 4);
        assert_eq!(
            (&*name, name.to_string(), format!("{name:?}")),
            ("vm-1", "vm-1".to_owned(), "\"vm-1\"".to_owned())
        );
        assert_eq!(name, InstanceName::from("vm-1"));
        assert_eq!(name, name.clone());
        let (next, whole) = (InstanceName::from("vm-2"), InstanceName::end_of(&lease, 12));
        assert!(whole < name && name < next);
    }
}
