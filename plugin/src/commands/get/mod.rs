//! `get`: shows registrations with all their instances and all that is published of them.

pub mod body;
mod watch;

use clap::Args;

use crate::{
    error::{Error, Outcome},
    flags::{ConnectionFlags, Format, Selection},
    gather::{gather, scope::Wanted},
    model::{assemble, registration::Picture},
    output::{Document, Output},
    render::{
        document::Report,
        tree::{Look, Rows},
    },
    session::Session,
};

/// The arguments of `get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    #[command(flatten)]
    selection: Selection,
    /// The form of the output. Default: a tree.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Follow the changes: a live view on a terminal, and a line for each change elsewhere.
    #[arg(short, long)]
    watch: bool,
}

/// Shows the registrations.
///
/// # Errors
/// [`Error`], if they cannot be read or printed.
pub async fn run(
    args: &GetArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let as_document = args.output.is_some_and(|format| format != Format::Wide);
    if args.watch && as_document {
        return Err(Error::Usage("--watch shows a tree; it goes with -o wide alone".to_owned()));
    }
    let session = Session::open(connection).await?;
    let wanted = Wanted::of(&args.selection, &session.namespace);
    if args.watch {
        let wide = args.output == Some(Format::Wide);
        return watch::run(&session, &wanted, wide, output).await;
    }
    let store = gather(&session, &wanted).await?;
    let now = session.clock.now();
    let picture = assemble::picture(&store, now);
    if picture.registrations.is_empty() && args.output.is_none() {
        output.remark(&format!("there is no ServiceRegistration in {}", wanted.scope));
        return Ok(Outcome::Well);
    }
    let report = || Report::of(&picture, wanted.name.is_some(), now);
    match args.output {
        Some(Format::Json) => output.document(Document::Json, &report())?,
        Some(Format::Yaml) => output.document(Document::Yaml, &report())?,
        Some(Format::Name) => output.text(&names(&picture))?,
        None | Some(Format::Wide) => {
            let wide = args.output == Some(Format::Wide);
            let rows = Rows::of(&picture, Look { wide, width: output.width, troubled: false });
            output.lines(&rows.lines(&picture, now))?;
        }
    }
    Ok(Outcome::Well)
}

/// The registrations as kubectl takes them.
fn names(picture: &Picture) -> String {
    let name = |it: &crate::model::registration::RegistrationView| {
        format!("serviceregistration.beatkeeper.dev/{}\n", it.key.name)
    };
    picture.registrations.iter().map(name).collect()
}
