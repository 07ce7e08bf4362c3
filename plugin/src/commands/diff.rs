//! `diff`: what would change if a registration published now.

use beatkeeper_api::status::condition;
use clap::Args;

use crate::{
    change::obstacle::Obstacle,
    error::{Error, Outcome, Problem},
    flags::ConnectionFlags,
    gather::{
        gather,
        scope::{Scope, Wanted},
    },
    model::{
        assemble, difference::Difference, kind::Kind, planned::Assuming,
        registration::RegistrationView, store::Store,
    },
    output::{Form, Output},
    render::difference::{ASSUMES_ENDPOINTS, DifferenceReport, short, unified},
    session::Session,
};

/// The arguments of `diff`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes, as of kubectl diff: 0 nothing would change, 1 something would, 2 the comparison failed."
)]
pub struct DiffArgs {
    /// Name of the registration.
    #[arg(value_name = "NAME")]
    name: String,
    /// The form of the output. Default: all changes, in the unified format.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Form>,
}

/// Shows the difference. The outcome is that something was found, if something would change.
///
/// # Errors
/// [`Error::NotCompared`], if there is no such registration, no operator has reported on it, or something cannot be
/// read.
pub async fn run(
    args: &DiffArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let differs = compare(args, connection, output).await;
    let differs = differs.map_err(|error| Error::NotCompared(Box::new(error)))?;
    Ok(if differs { Outcome::Found } else { Outcome::Well })
}

/// Prints the difference. Returns whether there is one.
async fn compare(
    args: &DiffArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<bool, Error> {
    let session = Session::open(connection).await?;
    let scope = Scope::Namespace(session.namespace.clone());
    let wanted = Wanted { scope, name: Some(args.name.clone()), labels: None };
    let store = gather(&session, &wanted).await?;
    let now = session.clock.now();
    let object = store.registrations.values().next().expect("it was read by its name");
    let view = assemble::registration(&store, object, now);
    check(&store, &view)?;
    let difference = Difference::of(&store, object, &view, Assuming::AsReported, now);
    let says = view.reported.condition(condition::READY).map(|ready| ready.message.clone());
    let says = says.unwrap_or_default();
    match args.output.map(Form::document) {
        Some(Some(document)) => {
            output.document(document, &DifferenceReport::of(&view, &difference, &says))?
        }
        Some(None) => output.lines(&short(&difference))?,
        None => {
            output.remark(&format!("status {}: {says}", view.reported.reason()));
            output.lines(&unified(&difference))?;
        }
    }
    if difference.assumes_endpoints {
        output.remark(ASSUMES_ENDPOINTS);
    }
    Ok(!difference.is_empty())
}

/// Whether all that is compared is known.
pub fn check(store: &Store, view: &RegistrationView) -> Result<(), Error> {
    let needed = [Kind::EndpointSlice, Kind::Endpoints, Kind::Service, Kind::Lease, Kind::Pod];
    let missing = needed.map(Kind::as_str);
    if let Some(unread) = store.unread.iter().find(|unread| missing.contains(&&*unread.what)) {
        let doing = format!("read {}", unread.what);
        return Err(Error::Request { doing, problem: Problem::Refused(unread.why.clone()) });
    }
    if !view.reported.current || view.reported.condition(condition::READY).is_none() {
        let (namespace, name) = (view.key.namespace.clone(), view.key.name.clone());
        return Err(Obstacle::NotReported { namespace, name }.into());
    }
    Ok(())
}
