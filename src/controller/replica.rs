//! Who this process is, among other replicas and those that ran before it.

use kube::Client;

use beatkeeper_client::names::hostname;

/// The longest name of a replica that leaves room for what is put around it in names of objects.
const NAME_MAX: usize = 200;

/// The name of this process: that of its Pod, or else of its host, and something that no other
/// process has. A container that was started anew in the same Pod is another replica.
pub(super) fn identity() -> String {
    let name: String = pod().unwrap_or_else(hostname).chars().take(NAME_MAX).collect();
    format!("{name}-{:08x}", rand::random::<u32>())
}

/// The namespace of the operator's own Leases: that of its Pod, or else of its kubeconfig.
pub(super) fn namespace(client: &Client) -> String {
    given("POD_NAMESPACE").unwrap_or_else(|| client.default_namespace().to_owned())
}

/// The Pod that this process runs in, where it was told.
pub(super) fn pod() -> Option<String> {
    given("POD_NAME")
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
