//! `drain`: publishes an instance as terminating, so that it gets no new connections and can finish the existing ones.

use beatkeeper_api::heartbeat::{HEALTH_ANNOTATION, Health, NOTE_ANNOTATION};
use clap::Args;

use crate::{
    change::{
        consent::tell_and_ask,
        obstacle::Obstacle,
        write::{self, Mark},
    },
    error::{Error, Outcome},
    flags::{ConnectionFlags, RemovalFlags},
    output::Output,
    target::open,
};

/// The arguments of `drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// The registration and its instance, such as greeter/vm-1.
    #[arg(value_name = "NAME/INSTANCE")]
    instance: String,
    /// Why; it becomes the note of the instance. Default: its own note stays.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    removal: RemovalFlags,
}

/// Drains the instance.
///
/// # Errors
/// [`Error`], if there is no such instance, it has no Lease or drains already, too few instances would be left
/// and there is no consent, or the API server refuses it.
pub async fn run(
    args: &DrainArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let (target, session, found) = open(&args.instance, connection).await?;
    let instance = found.instance(&target, &session).await?;
    let Some(lease) = target.lease(&session).await? else {
        let instance = target.to_string();
        let hint = "An instance that has never beaten has nothing to finish.".to_owned();
        return Err(Obstacle::NoLease { instance, what: "a drain", hint }.into());
    };
    let content = &lease.heartbeat.content;
    let end = |notes| end(&session.namespace, &lease.key.name, notes);
    if content.health == Ok(Health::Draining) {
        let note = content.note.clone().unwrap_or_default();
        let instance = target.to_string();
        return Err(Obstacle::AlreadyDraining { instance, note, end: end(Notes::Kept) }.into());
    }
    tell_and_ask(&found.view, instance, &args.removal, output)?;
    let dry_run = args.removal.change.dry_run;
    write::mark(&session.client, &lease, &Mark::Drain(args.reason.clone()), dry_run).await?;
    output.text(&format!("instance {target} draining{}\n", dry_run.suffix()))?;
    let notes = if args.reason.is_some() { Notes::Removed } else { Notes::Kept };
    output.remark(&format!("To end that: {}", end(notes)));
    Ok(Outcome::Well)
}

/// What the end of a drain does to the note of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notes {
    /// The note may be the instance's own, and a client need not write it again.
    Kept,
    /// The note is the reason of the drain.
    Removed,
}

/// The command that ends a drain. After it, the health that the instance itself reports counts again.
pub fn end(namespace: &str, lease: &str, notes: Notes) -> String {
    let note = match notes {
        Notes::Kept => String::new(),
        Notes::Removed => format!(" {NOTE_ANNOTATION}-"),
    };
    format!("kubectl -n {namespace} annotate lease {lease} {HEALTH_ANNOTATION}-{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_drain_removes_a_note_only_if_the_drain_wrote_it() {
        let kept = "kubectl -n shop annotate lease greeter.vm-1 beatkeeper.dev/health-";
        assert_eq!(end("shop", "greeter.vm-1", Notes::Kept), kept);
        let removed = format!("{kept} beatkeeper.dev/note-");
        assert_eq!(end("shop", "greeter.vm-1", Notes::Removed), removed);
    }
}
