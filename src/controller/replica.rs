//! The identity of this process among other replicas and earlier processes.

use kube::Client;

use beatkeeper_client::names::hostname;

/// The longest name of a replica. It leaves room for the other parts of the names of objects.
const NAME_MAX: usize = 200;

/// The identity of this process: the name of its Pod, or else of its host, and a random suffix. A restarted
/// container in the same Pod is a different replica.
pub(crate) fn identity() -> String {
    let name: String = pod().unwrap_or_else(hostname).chars().take(NAME_MAX).collect();
    format!("{name}-{:08x}", rand::random::<u32>())
}

/// The namespace of the operator's own Leases: the namespace of its Pod, or else of its kubeconfig.
pub(crate) fn namespace(client: &Client) -> String {
    given("POD_NAMESPACE").unwrap_or_else(|| client.default_namespace().to_owned())
}

/// The name of the Pod of this process, if it is set.
pub(crate) fn pod() -> Option<String> {
    given("POD_NAME")
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
