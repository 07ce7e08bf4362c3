//! `why`: the argument about one instance, step by step.

use beatkeeper_core::vocabulary::key::Key;
use clap::Args;

use crate::{
    error::{Error, Outcome, Problem},
    flags::ConnectionFlags,
    gather::events,
    leader::{ask, flags::LeaderFlags},
    model::why::{self, leader::Leader},
    output::{Document, Output},
    render,
    session::Session,
    target::{Found, open, unknown},
};

/// The arguments of `why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// The registration and its instance, such as greeter/vm-1.
    #[arg(value_name = "NAME/INSTANCE")]
    instance: String,
    /// The form of the output. Default: text.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Document>,
    #[command(flatten)]
    leader: LeaderFlags,
}

/// What the leader knows of the instance, or why it is not known.
async fn leader(
    args: &WhyArgs,
    connection: &ConnectionFlags,
    session: &Session,
    registration: &Key,
    instance: &str,
) -> Leader {
    if args.leader.without_leader {
        return Leader::NotWanted;
    }
    match ask::ask(session, connection, &args.leader, registration, instance).await {
        Ok(explanation) => Leader::Explained(Box::new(explanation)),
        Err(unasked) => Leader::Unasked(unasked.to_string()),
    }
}

/// Argues about the instance. The outcome is that something was found, unless it is published as ready and nothing has
/// to be done.
///
/// # Errors
/// [`Error`], if there is no such instance, or the registration cannot be read.
pub async fn run(
    args: &WhyArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let (target, session, found) = open(&args.instance, connection).await?;
    let Found { mut store, view, .. } = found;
    let events = match events::of(&session.client, &view.key).await {
        Ok(events) => events,
        Err(error) => {
            store.note_unread("Event", Problem::of(&error).brief());
            Vec::new()
        }
    };
    let leader = leader(args, connection, &session, &view.key, &target.instance).await;
    let now = session.clock.now();
    let Some(why) = why::why(&store, &view, &target.instance, &events, leader, now) else {
        return Err(unknown(&session, &view, &target).await);
    };
    let found = view.instance(&target.instance).expect("there is an argument about it");
    match args.output {
        Some(document) => {
            output.document(document, &render::why::report(&view, found, &why, now))?
        }
        None => {
            output.lines(&render::why::lines(&view, found, &why, output.width, now))?;
            let unread: Vec<_> = store.unread.iter().cloned().collect();
            output.lines(&render::tree::unread(&unread, output.width))?;
        }
    }
    Ok(if why.well { Outcome::Well } else { Outcome::Found })
}
