//! `top`: how much registrations beat, and which instances are late.

pub mod body;
mod watch;

use clap::Args;

use crate::{
    error::{Error, Outcome, Problem},
    flags::{ConnectionFlags, Selection},
    gather::{
        gather,
        scope::{Scope, Wanted},
    },
    model::{
        assemble,
        kind::Kind,
        load::{Load, SortBy, sort},
    },
    output::{Document, Output},
    render::load::LoadsReport,
    session::Session,
};

use body::Table;

/// The arguments of `top`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "BEATS(/s) is how many instances beat in time, divided by the interval, by one look at their Leases. In time is \
                  no later than half of ttl − interval. OVERDUE are published instances that are later. \
                  NEXT DEADLINE says which instance is pruned next, and when, unless it beats."
)]
pub struct TopArgs {
    #[command(flatten)]
    selection: Selection,
    /// By what to sort.
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t)]
    sort_by: SortBy,
    /// Add a line with all registrations together.
    #[arg(long)]
    sum: bool,
    /// The form of the output. Default: a table.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Document>,
    /// Follow the changes: a live view on a terminal, and a table each second elsewhere.
    #[arg(short, long, conflicts_with = "output")]
    watch: bool,
}

/// Shows how much the registrations beat.
///
/// # Errors
/// [`Error`], if they or their Leases cannot be read, or nothing can be printed.
pub async fn run(
    args: &TopArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let session = Session::open(connection).await?;
    let wanted = Wanted::of(&args.selection, &session.namespace);
    let table = Table::new(args.sort_by, args.sum, matches!(wanted.scope, Scope::All));
    if args.watch {
        return watch::run(&session, &wanted, table, output).await;
    }
    let store = gather(&session, &wanted).await?;
    let now = session.clock.now();
    let leases = Kind::Lease.as_str();
    if let Some(unread) = store.unread.iter().find(|unread| unread.what == leases) {
        let doing = format!("read Leases in {}", wanted.scope);
        return Err(Error::Request { doing, problem: Problem::Refused(unread.why.clone()) });
    }
    let picture = assemble::picture(&store, now);
    match args.output {
        Some(document) => {
            let mut loads: Vec<Load> =
                picture.registrations.iter().map(|it| Load::of(it, now)).collect();
            sort(&mut loads, args.sort_by);
            output.document(document, &LoadsReport::of(&loads))?;
        }
        None if picture.registrations.is_empty() => {
            output.remark(&format!("there is no ServiceRegistration in {}", wanted.scope));
        }
        None => output.lines(&table.lines(&picture, output.width, now))?,
    }
    Ok(Outcome::Well)
}
