//! `adopt`: has the operator rehearse the adoption of a Service, shows what would change, and has it made.

mod rehearsal;
mod subject;
mod told;

use std::time::Duration;

use beatkeeper_api::duration;
use clap::Args;
use serde_json::Value;

use super::diff::check;
use crate::{
    change::{
        consent,
        registration::{self, Created},
    },
    error::{Error, Outcome},
    flags::{ChangeFlags, ConnectionFlags, DryRun},
    model::{difference::Difference, planned::Assuming},
    output::{Document, Output},
    session::Session,
    signals::End,
};
use rehearsal::Rehearsal;
use subject::Subject;

/// The arguments of `adopt`.
#[derive(Debug, Clone, Args)]
pub struct AdoptArgs {
    /// Name of the Service. The registration gets the same name.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// How long an instance may be silent, once it has beaten. Default: that of the API, 90s.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How often an instance beats. Default: that of the API, 30s.
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// How long the operator may take to rehearse, and to adopt. A new leader needs some seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
    /// Adopt it without asking, unless the operator refuses.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

/// Adopts the Service.
///
/// # Errors
/// [`Error`], if the Service cannot be adopted, no person agrees, the operator refuses or does not work, or the API server
/// refuses a write. If nothing was taken over yet, everything is undone first.
pub async fn run(
    args: &AdoptArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let session = Session::open(connection).await?;
    let subject = Subject::read(&session, &args.service).await?;
    let manifest = subject.manifest(args.ttl.as_deref(), args.interval.as_deref());
    if args.change.dry_run != DryRun::None {
        return try_out(args.change.dry_run, &session, &subject, &manifest, output).await;
    }
    let created = create(&session, &subject, &manifest, DryRun::None).await?;
    output.remark(&format!(
        "serviceregistration/{} created in a dry run; the operator rehearses …",
        subject.name
    ));
    let selecting = subject.selecting.clone();
    let mut rehearsal = Rehearsal::of(&session, created, selecting, args.timeout);
    if let Err(cause) = rehearse(&mut rehearsal, args, &mut end, output).await {
        return Err(rehearsal.undo(&cause).await);
    }
    match registration::end_dry_run(&session.client, &rehearsal.created).await {
        Ok(()) => {}
        // Without an answer the dry run may have ended.
        Err(cause) if cause.is_unanswered() => return Err(rehearsal.goes_on(&cause)),
        Err(cause) => return Err(rehearsal.undo(&cause).await),
    }
    let published = rehearsal.published(&mut end).await;
    published.map_err(|cause| rehearsal.goes_on(&cause))?;
    output.text(&format!("service/{} adopted\n", subject.name))?;
    output.remark(&format!(
        "Let its instances beat (docs/heartbeat.md). See which do not yet: kubectl beatkeeper -n {} get {}",
        session.namespace, subject.name
    ));
    Ok(Outcome::Well)
}

async fn create(
    session: &Session,
    subject: &Subject,
    manifest: &Value,
    dry_run: DryRun,
) -> Result<Created, Error> {
    let (client, namespace) = (&session.client, &session.namespace);
    registration::create(client, namespace, &subject.name, manifest, dry_run).await
}

/// Has the API server check the writes, and prints the registration. Nothing is stored, so the operator rehearses
/// nothing.
async fn try_out(
    dry_run: DryRun,
    session: &Session,
    subject: &Subject,
    manifest: &Value,
    output: &Output,
) -> Result<Outcome, Error> {
    create(session, subject, manifest, dry_run).await?;
    if let Some(selecting) = &subject.selecting {
        selecting.label(&session.client, dry_run).await?;
        selecting.release(&session.client, dry_run).await?;
    }
    output.document(Document::Yaml, manifest)?;
    output.remark(&format!("service/{} adopted{}", subject.name, dry_run.suffix()));
    output.remark(
        "The operator rehearses it without this flag, and you are asked before anything changes.",
    );
    Ok(Outcome::Well)
}

/// Everything that can be undone: the operator rehearses, a person agrees, and the Service loses its selector.
async fn rehearse(
    rehearsal: &mut Rehearsal<'_>,
    args: &AdoptArgs,
    end: &mut End,
    output: &Output,
) -> Result<(), Error> {
    let (store, view) = rehearsal.rehearsed(end).await?;
    check(&store, &view)?;
    let object = store.registrations.values().next().expect("it was read by its name");
    let assuming = match rehearsal.selecting {
        Some(_) => Assuming::SelectorRemoved,
        None => Assuming::AsReported,
    };
    let now = rehearsal.session.clock.now();
    let difference = Difference::of(&store, object, &view, assuming, now);
    output.lines(&told::told(&view, &difference, rehearsal.selecting.as_ref()))?;
    if !args.yes {
        consent::ask(end).await?;
    }
    rehearsal.release(end).await
}
