//! Forgetting whoever is gone, where no reconciliation does.
//!
//! The leader reads a Lease that its watch has lost at once (L4), and forgets it if it is not there. Nobody does on
//! a replica that stands by, for a registration that is gone, or for a Pod that is gone and whose Lease has no label. For a
//! leader it is next to nothing: whom its watch has lost it has read before.

use std::sync::Arc;

use super::{context::Context, verify};
use beatkeeper_core::{
    index::{Index, Key, Presence},
    verdict::Suspect,
};

/// Forgets again and again, at the interval of the sweep, for as long as the process lasts.
pub(super) async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(context.settings.sweep_interval).await;
        for (registration, unwatched) in sort_out(&context) {
            // What cannot be read now is read the next time, or by whoever takes over.
            verify::suspects(&registration, unwatched, &context).await;
            // Whoever reads decides next; this one does not.
            context.wake([registration]);
        }
    }
}

/// Forgets the Leases that the watch does not show and that have lost their registration, too: nothing is published for
/// them, so it takes no read. Returns the others that it does not show.
fn sort_out(context: &Context) -> Vec<(Key, Vec<Suspect>)> {
    let mut index = context.index();
    forget_the_lost(&mut index, context);
    let unwatched: Vec<(Key, Vec<Suspect>)> = index
        .registrations()
        .map(|(registration, records)| {
            let unwatched = records.filter(|record| record.presence != Presence::Watched);
            let suspect = |lease| Suspect { lease, deadline: None };
            (registration.clone(), unwatched.map(|record| suspect(record.lease.clone())).collect())
        })
        .filter(|(_, unwatched): &(_, Vec<_>)| !unwatched.is_empty())
        .collect();
    let world = context.world();
    let (known, orphans): (Vec<_>, Vec<_>) =
        unwatched.into_iter().partition(|(registration, _)| world.has_registration(registration));
    for (registration, leases) in &orphans {
        leases.iter().for_each(|orphan| index.drop_orphan(registration, &orphan.lease));
    }
    index.forget_cordons_but(|registration| world.has_registration(registration));
    known
}

/// Forgets those whose Leases were lost when the store went back, and who have not come again in two ttls: a replica that
/// stands by takes no decision about them.
fn forget_the_lost(index: &mut Index, context: &Context) {
    let all: Vec<Key> = index.registrations().map(|(key, _)| key.clone()).collect();
    let (world, now) = (context.world(), context.clock.now());
    for registration in all {
        if let Some(pace) = world.pace_of(&registration) {
            index.forget_unshown(&registration, pace.ttl * 2, now);
        }
    }
}
