//! The writes: merge patches of annotations, each on a condition.

use beatkeeper_api::{
    ServiceRegistration,
    heartbeat::{CORDONED_ANNOTATION, HEALTH_ANNOTATION, Health, NOTE_ANNOTATION},
    registration::UNCORDON_ANNOTATION,
};
use k8s_openapi::{NamespaceResourceScope, api::coordination::v1::Lease};
use kube::{
    Client, Resource,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::{Value, json};

use crate::{error::Error, flags::DryRun, model::lease::SeenLease};

/// The name under which the API server records these writes. It is no process that beats, so the agent and the SDK do
/// not undo them.
pub(super) const MANAGER: &str = "kubectl-beatkeeper";

/// The annotations of a Lease that are set, or removed by `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The instance is cordoned for this reason, or no longer.
    Cordon(Option<String>),
    /// The instance drains, with this note. Without one, its own note stays.
    Drain(Option<String>),
}

impl Mark {
    fn annotations(&self) -> Value {
        match self {
            Self::Cordon(reason) => json!({ CORDONED_ANNOTATION: reason }),
            Self::Drain(None) => json!({ HEALTH_ANNOTATION: Health::Draining.as_str() }),
            Self::Drain(Some(note)) => json!({
                HEALTH_ANNOTATION: Health::Draining.as_str(),
                NOTE_ANNOTATION: note,
            }),
        }
    }

    /// What may be missing if the API server refuses it.
    fn right(&self, namespace: &str) -> String {
        let of_policy = match self {
            Self::Cordon(_) => "`cordon`",
            Self::Drain(_) => "`register` or `cordon`",
        };
        format!(
            "patch for leases.coordination.k8s.io in namespace {namespace}; with the chart's admission policy also \
             {of_policy} for serviceregistrations.beatkeeper.dev"
        )
    }
}

/// Writes a mark on a Lease, on the condition that it is still the same Lease.
///
/// # Errors
/// [`Error`] of the API server.
pub async fn mark(
    client: &Client,
    lease: &SeenLease,
    mark: &Mark,
    dry_run: DryRun,
) -> Result<(), Error> {
    let annotations = mark.annotations();
    // With the uid, another Lease of this name is a conflict.
    let uid = &*lease.heartbeat.token.uid;
    let patch = json!({ "metadata": { "uid": uid, "annotations": annotations } });
    let key = &lease.key;
    let patched = patch_object::<Lease>(client, &key.namespace, &key.name, patch, dry_run).await;
    patched.map_err(|error| {
        let doing = format!("annotate Lease {} in namespace {}", key.name, key.namespace);
        Error::of_write(doing, mark.right(&key.namespace), &error)
    })
}

/// Sets the annotation of a registration that lifts cordons without a Lease, on the condition that the registration is
/// as it was read. Returns whether it still was.
///
/// # Errors
/// [`Error`] of the API server.
pub async fn ask_for_uncordon(
    client: &Client,
    object: &ServiceRegistration,
    names: Option<&str>,
    dry_run: DryRun,
) -> Result<bool, Error> {
    let metadata = &object.metadata;
    let (namespace, name) = (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let patch = json!({ "metadata": {
        "resourceVersion": metadata.resource_version,
        "annotations": { UNCORDON_ANNOTATION: names },
    } });
    let patched =
        patch_object::<ServiceRegistration>(client, namespace, name, patch, dry_run).await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => {
            let doing = format!("annotate ServiceRegistration {name} in namespace {namespace}");
            let right = format!(
                "patch for serviceregistrations.beatkeeper.dev in namespace {namespace}; with the chart's admission \
                 policy also `cordon`"
            );
            Err(Error::of_write(doing, right, &error))
        }
        Ok(()) => Ok(true),
    }
}

/// Sends a merge patch. The answer is not read: it may have times that no type can hold.
pub(super) async fn patch_object<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: &Client,
    namespace: &str,
    name: &str,
    patch: Value,
    dry_run: DryRun,
) -> kube::Result<()> {
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let params = PatchParams {
        dry_run: dry_run == DryRun::Server,
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let path = Request::new(K::url_path(&(), Some(namespace)));
    let request = path.patch(name, &params, &Patch::Merge(patch));
    client.request_text(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}

/// The names in the annotation that lifts cordons, with one more or one less.
pub fn uncordoned(before: Option<&str>, name: &str, add: bool) -> Option<String> {
    let names = before.into_iter().flat_map(|names| names.split(',')).map(str::trim);
    let others = names.filter(|known| !known.is_empty() && *known != name);
    let all: Vec<&str> = others.chain(add.then_some(name)).collect();
    (!all.is_empty()).then(|| all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_others_stay_in_the_annotation() {
        assert_eq!(uncordoned(None, "vm-1", true).as_deref(), Some("vm-1"));
        assert_eq!(uncordoned(Some("vm-2, vm-1"), "vm-1", true).as_deref(), Some("vm-2,vm-1"));
        assert_eq!(uncordoned(Some("vm-2,vm-1"), "vm-1", false).as_deref(), Some("vm-2"));
        assert_eq!(uncordoned(Some(" vm-1 "), "vm-1", false), None);
    }

    #[test]
    fn a_drain_without_a_reason_leaves_the_note_of_the_instance() {
        assert_eq!(Mark::Drain(None).annotations(), json!({ "beatkeeper.dev/health": "Draining" }));
        assert_eq!(Mark::Cordon(None).annotations(), json!({ "beatkeeper.dev/cordoned": null }));
    }
}
