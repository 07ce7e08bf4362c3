//! `check`: says whether an installation works, or whether a cluster is ready for one.

use std::time::Duration;

use beatkeeper_api::duration;
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use crate::{
    check::{self, before, rights, verdict::Verdict},
    error::{Error, Outcome},
    flags::ConnectionFlags,
    gather,
    output::{Document, Output},
    render,
    session::Session,
};

/// The arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Check what is needed before an installation.
    #[arg(long)]
    pre: bool,
    /// Check again until nothing fails, for at most this long, such as 2m.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// The form of the output. Default: all checks, and a summary.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Form>,
}

/// A form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Only the checks that are not fine.
    Short,
    /// One JSON document.
    Json,
}

/// How long to wait before everything is checked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Checks the cluster. The outcome is that something was found if a check fails.
///
/// # Errors
/// [`Error`], if the cluster cannot be reached.
pub async fn run(
    args: &CheckArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let session = Session::open(connection).await?;
    let until = Instant::now() + args.wait.unwrap_or_default();
    let verdicts = loop {
        let verdicts = verdicts(args, connection, &session).await?;
        if !verdicts.iter().any(Verdict::is_failed) || Instant::now() >= until {
            break verdicts;
        }
        sleep(PAUSE).await;
    };
    match args.output {
        Some(Form::Json) => output.document(Document::Json, &render::check::document(&verdicts))?,
        form => {
            let short = form == Some(Form::Short);
            output.lines(&render::check::lines(&verdicts, short, output.width))?;
        }
    }
    let found = verdicts.iter().any(Verdict::is_failed);
    Ok(if found { Outcome::Found } else { Outcome::Well })
}

async fn verdicts(
    args: &CheckArgs,
    connection: &ConnectionFlags,
    session: &Session,
) -> Result<Vec<Verdict>, Error> {
    let namespace = connection.namespace.as_deref();
    if args.pre {
        return Ok(before::verdicts(&gather::check::before(session, namespace).await?));
    }
    if let Some(user) = &connection.act_as {
        let needed = rights::needed_by_workload(&session.namespace);
        let lacking = gather::check::lacking(&session.client, &needed).await;
        let lacking = lacking.map(|all| all.iter().map(ToString::to_string).collect());
        return Ok(vec![rights::of_workload(user, &session.namespace, &lacking)]);
    }
    Ok(check::installation(&gather::check::facts(session, namespace).await?))
}
