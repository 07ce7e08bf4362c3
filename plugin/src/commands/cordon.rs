//! `cordon`: removes an instance from what is published, although it beats.

use beatkeeper_api::{heartbeat::NOTE_MAX, text::plain_cut};
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

/// The arguments of `cordon`.
#[derive(Debug, Clone, Args)]
pub struct CordonArgs {
    /// The registration and its instance, such as greeter/vm-1.
    #[arg(value_name = "NAME/INSTANCE")]
    instance: String,
    /// Why; it is shown wherever the instance is.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    removal: RemovalFlags,
}

/// Cordons the instance.
///
/// # Errors
/// [`Error`], if there is no such instance, it has no Lease or is cordoned already, too few instances would be left
/// and there is no consent, or the API server refuses it.
pub async fn run(
    args: &CordonArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let (target, session, found) = open(&args.instance, connection).await?;
    let instance = found.instance(&target, &session).await?;
    let Some(lease) = target.lease(&session).await? else {
        let hint =
            without_lease(&found.view.key.name, &target.instance, instance.reason == "Adopted");
        let instance = target.to_string();
        return Err(Obstacle::NoLease { instance, what: "a cordon", hint }.into());
    };
    if let Some(reason) = &lease.heartbeat.content.cordoned {
        let (namespace, instance) = (session.namespace.clone(), target.to_string());
        let reason = plain_cut(reason, NOTE_MAX);
        return Err(Obstacle::AlreadyCordoned { namespace, instance, reason }.into());
    }
    tell_and_ask(&found.view, instance, &args.removal, output)?;
    let dry_run = args.removal.change.dry_run;
    let mark = Mark::Cordon(Some(args.reason.clone()));
    write::mark(&session.client, &lease, &mark, dry_run).await?;
    output.text(&format!("instance {target} cordoned{}\n", dry_run.suffix()))?;
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
