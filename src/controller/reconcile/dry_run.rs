//! The apply step of a dry run. It writes nothing. It remembers what would be published, so that the next
//! decision is the same as it would be without the dry run.

use crate::controller::{context::Context, reconcile::apply::Outcome};
use beatkeeper_core::{
    inputs::Inputs,
    objects::{published_addresses::PublishedAddresses, registration::Registration},
    plan::write::Plan,
    report::{applied::Applied, dry_run},
};

/// Bases the decision on what would be published now. After the dry run only what is published counts.
pub(crate) fn recall(registration: &Registration, stage: &mut Inputs, context: &Context) {
    let dry_run_published = context.remember(&registration.key, &registration.uid, |memory| {
        if !registration.dry_run {
            memory.dry_run_published = None;
        }
        memory.dry_run_published.clone()
    });
    if let Some(dry_run_published) = dry_run_published {
        stage.snapshot.published = dry_run_published;
    }
}

/// Replaces the apply step.
pub(crate) fn dry_run(
    registration: &Registration,
    stage: &Inputs,
    plan: &Plan,
    context: &Context,
) -> Outcome {
    let published = dry_run::published_after(stage, plan);
    context.remember(&registration.key, &registration.uid, |memory| {
        memory.dry_run_published = Some(published.clone());
    });
    let dry_run = Some(dry_run::describe(stage, plan));
    let published = PublishedAddresses::as_ready(published);
    Outcome::Done(Applied { published, dry_run, ..Applied::default() })
}
