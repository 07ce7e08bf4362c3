//! Runs one scope.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::owners::Scope;
use crate::controller::watch::address_scope::AddressScope;

pub(crate) use super::owners::Shared;

/// The scope of an operator that is limited to no namespace.
const ALL: &str = "all namespaces";

/// A part of the operator that never ends by itself has ended. The operator must not continue: it would treat
/// objects that this part no longer reports as unchanged or as absent.
#[derive(Debug, thiserror::Error)]
#[error("a part of the controller has ended by itself; see the log above, and please report it")]
pub struct EndedByItself;

/// Runs a scope until `outer` is cancelled, and then until all its tasks have ended.
///
/// # Errors
/// [`EndedByItself`].
pub(crate) async fn run(
    shared: &Shared,
    namespace: Option<String>,
    addresses: AddressScope,
    outer: CancellationToken,
) -> Result<(), EndedByItself> {
    let stop = outer.child_token();
    let scope = Scope::new(shared, namespace, stop.clone());
    scope.run(addresses).await;
    let ended_by_itself = !outer.is_cancelled();
    outer.cancel();
    scope.tasks.ended().await;
    if ended_by_itself { Err(EndedByItself) } else { Ok(()) }
}

impl Scope {
    /// Observes, and publishes while this replica leads.
    async fn run(&self, addresses: AddressScope) {
        let registration_watch = self.registration_watch();
        let registrations = registration_watch.start();
        self.scopes.add(self.memory(registrations.clone()));
        let probes = Arc::new(self.probes());
        let first_lists = self.object_watches(probes.clone()).start(addresses);
        let access = Arc::new(self.access_reporter(registrations.clone()));
        self.tasks.spawn_for_ever(access.clone().run());
        let verifier = Arc::new(self.verifier());
        let ready = async {
            first_lists.read().await;
            probes.resume();
            // Beats of a Lease that is not known yet could not be taken in.
            self.start_gateways();
            self.tasks.spawn_for_ever(self.renewer().run());
            let read = registrations.wait_until_ready().await;
            registration_watch.note_first_list();
            // The caches must know all registrations first: a Lease without a registration is forgotten without a
            // read.
            self.tasks.spawn_for_ever(self.missing_leases(verifier.clone()).run());
            self.tasks.spawn_for_ever(self.watch_check().run());
            read
        };
        if let Some(Ok(())) = self.tasks.stop.run_until_cancelled(ready).await {
            let scope = self.name();
            tracing::info!(scope, "everything has been read once");
            if self.settings.dry_run {
                tracing::warn!(
                    "this is a dry run: everything is decided and reported, nothing published"
                );
            }
            self.warm.cancel();
            let leader = self.leader(scope, registrations, access, probes, verifier);
            leader.run(&self.tasks.stop).await;
        }
    }

    fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or(ALL)
    }
}
