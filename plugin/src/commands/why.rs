//! `why`: the argument about one instance, step by step.

use beatkeeper_api::heartbeat::{self, REGISTRATION_LABEL};
use clap::Args;

use crate::{
    error::{Error, Outcome},
    flags::ConnectionFlags,
    gather::{self, events, scope::Scope, scope::Wanted},
    model::{assemble, finding::named, registration::RegistrationView, why},
    output::{Document, Output},
    render,
    session::Session,
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
    let Some((registration, instance)) = args.instance.split_once('/') else {
        let given = &args.instance;
        return Err(Error::Usage(format!(
            "{given:?} names no instance; write NAME/INSTANCE, such as {given}/vm-1"
        )));
    };
    let session = Session::open(connection).await?;
    let scope = Scope::Namespace(session.namespace.clone());
    let wanted = Wanted { scope, name: Some(registration.to_owned()), labels: None };
    let mut store = gather::gather(&session, &wanted).await?;
    let Some(object) = store.registrations.values().next().cloned() else {
        return Err(Error::NoRegistration {
            namespace: session.namespace,
            name: registration.to_owned(),
            others: Vec::new(),
        });
    };
    let key = beatkeeper_core::vocabulary::key::Key::of(&object.metadata);
    let events = match events::of(&session.client, &key).await {
        Ok(events) => events,
        Err(error) => {
            store.note_unread("Event", crate::error::Problem::of(&error).brief());
            Vec::new()
        }
    };
    let now = session.clock.now();
    let view = assemble::registration(&store, &object, now);
    let Some(why) = why::why(&store, &view, instance, &events, now) else {
        return Err(unknown(&session, &view, instance).await);
    };
    let found = view.instance(instance).expect("there is an argument about it");
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

/// Why there is no instance of this name: perhaps its Lease lacks the label.
async fn unknown(session: &Session, view: &RegistrationView, instance: &str) -> Error {
    let lease = heartbeat::lease_name(&view.key.name, instance);
    let found = gather::lease(&session.client, &view.key.namespace, &lease).await;
    let hint = match found {
        Ok(Some(_)) => format!(
            "Lease {lease} exists, but its label {REGISTRATION_LABEL} is not {name}, so it is no heartbeat of it.\n\
             Set it with: kubectl -n {namespace} label --overwrite lease {lease} {REGISTRATION_LABEL}={name}",
            name = view.key.name,
            namespace = view.key.namespace,
        ),
        _ if view.instances.is_empty() => {
            format!(
                "It has no instances: nothing beats for it. An instance beats by its Lease, here {lease}."
            )
        }
        _ => format!("It has: {}", named(view.instances.iter().map(|it| it.name.as_str()))),
    };
    Error::NoInstance { registration: view.key.to_string(), instance: instance.to_owned(), hint }
}
