//! `check`: says whether an installation works, or whether a cluster is ready for one.

use std::time::Duration;

use beatkeeper_api::duration;
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::{
    check::{self, before, rights, verdict::Verdict},
    error::{Error, Outcome},
    flags::ConnectionFlags,
    gather::{self, check::Said},
    leader::flags::host_and_port,
    output::{Form, Output},
    render,
    session::Session,
    sizes,
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
    /// What etcd's --quota-backend-bytes is, such as 8Gi. Default: 2Gi, which is that of etcd, and then nothing fails by it.
    #[arg(long, value_name = "SIZE", value_parser = sizes::parse, conflicts_with = "pre")]
    etcd_quota: Option<u64>,
    /// Where the leader explains instances, such as 127.0.0.1:8082. Default: in its Pod, which kubectl port-forward reaches.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, conflicts_with = "pre")]
    operator_address: Option<String>,
    /// The form of the output. Default: all checks, and a summary.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Form>,
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
    match args.output.and_then(Form::document) {
        Some(document) => output.document(document, &render::check::document(&verdicts))?,
        None => {
            let short = args.output == Some(Form::Short);
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
        let lacking = gather::rights::lacking(&session.client, &needed).await;
        let lacking = lacking.map(|all| all.iter().map(ToString::to_string).collect());
        return Ok(vec![rights::of_workload(user, &session.namespace, &lacking)]);
    }
    let said =
        Said { connection, address: args.operator_address.as_deref(), quota: args.etcd_quota };
    Ok(check::installation(&gather::check::facts(session, said).await?))
}
