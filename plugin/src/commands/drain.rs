//! `drain`: publishes an instance as terminating, so that it gets no new connections and can finish the existing ones.

use beatkeeper_api::heartbeat::{HEALTH_ANNOTATION, Health, NOTE_ANNOTATION};
use clap::Args;

use crate::{
    change::{
        consent::{self, Given},
        obstacle::Obstacle,
        write::{self, Mark},
    },
    error::{Error, Outcome},
    flags::{ChangeFlags, ConnectionFlags},
    model::removal::Removal,
    output::Output,
    session::Session,
    target::Target,
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
    /// Do it also if fewer ready instances than minReady, or none, are left.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

/// Drains the instance.
///
/// # Errors
/// [`Error`], if there is no such instance, it has no Lease or drains already, too few instances would be left and
/// nobody consents, or the API server refuses it.
pub async fn run(
    args: &DrainArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let target = Target::read(&args.instance)?;
    let session = Session::open(connection).await?;
    let found = target.find(&session).await?;
    let instance = found.instance(&target, &session).await?;
    let Some(lease) = target.lease(&session).await? else {
        let instance = args.instance.clone();
        let hint = "An instance that has never beaten has nothing to finish.".to_owned();
        return Err(Obstacle::NoLease { instance, what: "a drain", hint }.into());
    };
    let content = &lease.heartbeat.content;
    let end = end(&session.namespace, &lease.key.name);
    if content.health == Ok(Health::Draining) {
        let note = content.note.clone().unwrap_or_default();
        let instance = args.instance.clone();
        return Err(Obstacle::AlreadyDraining { instance, note, end }.into());
    }
    let removal = Removal::of(&found.view, instance);
    output.text(&removal.told().iter().map(|line| format!("{line}\n")).collect::<String>())?;
    let dry_run = args.change.dry_run;
    if removal.leaves_too_few() {
        consent::ask(Given { yes: args.yes, dry_run })?;
    }
    write::mark(&session.client, &lease, &Mark::Drain(args.reason.clone()), dry_run).await?;
    output.text(&format!("instance {} draining{}\n", args.instance, dry_run.suffix()))?;
    output.remark(&format!("To end that: {end}"));
    Ok(Outcome::Well)
}

/// The command that ends a drain: the word of the instance itself counts again.
pub fn end(namespace: &str, lease: &str) -> String {
    format!("kubectl -n {namespace} annotate lease {lease} {HEALTH_ANNOTATION}- {NOTE_ANNOTATION}-")
}
