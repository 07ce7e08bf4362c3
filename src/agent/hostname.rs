//! The machine's name, as an instance name of last resort.

/// The host name in lower case: DNS does not mind, and Kubernetes takes no other names.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}
