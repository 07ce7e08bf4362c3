//! `cordon`: removes an instance from what is published, although it beats.

use beatkeeper_api::{heartbeat::NOTE_MAX, text::plain_cut};
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

/// The arguments of `cordon`.
#[derive(Debug, Clone, Args)]
pub struct CordonArgs {
    /// The registration and its instance, such as greeter/vm-1.
    #[arg(value_name = "NAME/INSTANCE")]
    instance: String,
    /// Why; it is shown wherever the instance is.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do it also if fewer ready instances than minReady, or none, are left.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

/// Cordons the instance.
///
/// # Errors
/// [`Error`], if there is no such instance, it has no Lease or is cordoned already, too few instances would be left and
/// nobody consents, or the API server refuses it.
pub async fn run(
    args: &CordonArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let target = Target::read(&args.instance)?;
    let session = Session::open(connection).await?;
    let found = target.find(&session).await?;
    let instance = found.instance(&target, &session).await?;
    let Some(lease) = target.lease(&session).await? else {
        let hint =
            without_lease(&found.view.key.name, &target.instance, instance.reason == "Adopted");
        let instance = args.instance.clone();
        return Err(Obstacle::NoLease { instance, what: "a cordon", hint }.into());
    };
    if let Some(reason) = &lease.heartbeat.content.cordoned {
        let (namespace, instance) = (session.namespace.clone(), args.instance.clone());
        let reason = plain_cut(reason, NOTE_MAX);
        return Err(Obstacle::AlreadyCordoned { namespace, instance, reason }.into());
    }
    let removal = Removal::of(&found.view, instance);
    output.text(&removal.told().iter().map(|line| format!("{line}\n")).collect::<String>())?;
    let dry_run = args.change.dry_run;
    if removal.leaves_too_few() {
        consent::ask(Given { yes: args.yes, dry_run })?;
    }
    let mark = Mark::Cordon(Some(args.reason.clone()));
    write::mark(&session.client, &lease, &mark, dry_run).await?;
    output.text(&format!("instance {} cordoned{}\n", args.instance, dry_run.suffix()))?;
    Ok(Outcome::Well)
}

/// How to remove an instance that has no Lease.
fn without_lease(registration: &str, instance: &str, adopted: bool) -> String {
    match adopted {
        true => format!(
            "It was adopted and has not beaten. Remove it by the list of addresses in the annotation \
             beatkeeper.dev/adopt of ServiceRegistration {registration}."
        ),
        false => format!(
            "It has not beaten, so it is not published. To keep it out, remove {instance} from spec.instances of \
             ServiceRegistration {registration}, or cordon it when it beats."
        ),
    }
}
