//! `loglevel`: changes how much a running operator logs. It lets kubectl run `beatkeeper log-level` in the operator's Pods.

use std::process::Stdio;

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, PartialObjectMeta},
};
use tokio::process::Command;

use crate::{
    error::{Error, Outcome},
    flags::ConnectionFlags,
    kubectl,
    output::Output,
    session::Session,
};

/// The label of the operator's Pods, in the chart.
const LABEL: &str = "beatkeeper.dev/operator";
/// Their container.
const CONTAINER: &str = "controller";
/// The program in the image.
const PROGRAM: &str = "/beatkeeper";

/// The arguments of `loglevel`.
#[derive(Debug, Clone, Args)]
pub struct LogLevelArgs {
    /// A Pod of the operator, or all of them in the namespace: all.
    #[arg(value_name = "POD")]
    pod: String,
    /// How much it is to log.
    level: Level,
    /// Only print the commands for kubectl.
    #[arg(long)]
    print: bool,
}

/// How much an operator logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// What it does, in detail.
    Debug,
    /// What RUST_LOG selected when it was started; in the chart, logLevel.
    Configured,
}

/// Changes the level in each Pod. kubectl has started the plugin, so it is there; and it can run a program in a Pod in every
/// way that clusters offer.
///
/// # Errors
/// [`Error`], if there is no Pod of the operator, or kubectl fails for one of them.
pub async fn run(
    args: &LogLevelArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let session = Session::open(connection).await?;
    let pods = match &*args.pod {
        "all" => operators(&session).await?,
        one => vec![one.to_owned()],
    };
    let mut outcome = Outcome::Well;
    for pod in pods {
        let words = words(connection, &session.namespace, &pod, args.level);
        let typed = typed(&words);
        if args.print {
            output.text(&format!("{typed}\n"))?;
            continue;
        }
        // What kubectl complains about goes to standard error, as it is.
        let mut kubectl = Command::new("kubectl");
        let status = kubectl.args(&words).stdin(Stdio::null()).status().await;
        if status.map_err(Error::Kubectl)?.success() {
            output.text(&format!("pod/{pod} log level set to {}\n", args.level.word()))?;
        } else {
            output.remark(&format!("pod/{pod} logs as before. This has failed: {typed}"));
            outcome = Outcome::Found;
        }
    }
    Ok(outcome)
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Configured => "configured",
        }
    }
}

/// The names of the operator's Pods in the namespace.
async fn operators(session: &Session) -> Result<Vec<String>, Error> {
    let namespace = &session.namespace;
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
    let params = ListParams::default().labels(LABEL).fields("status.phase=Running");
    let found = pods.list_metadata(&params).await.map_err(|error| {
        Error::of_request(format!("list the operator's Pods in namespace {namespace}"), &error)
    })?;
    match found.items.iter().map(PartialObjectMeta::name_any).collect::<Vec<_>>() {
        none if none.is_empty() => Err(Error::NoOperatorPod { namespace: namespace.clone() }),
        some => Ok(some),
    }
}

/// The words behind `kubectl`.
fn words(connection: &ConnectionFlags, namespace: &str, pod: &str, level: Level) -> Vec<String> {
    let mut words = kubectl::words(connection, namespace);
    let pod = format!("pod/{pod}");
    let command =
        ["exec", &*pod, "--container", CONTAINER, "--", PROGRAM, "log-level", level.word()];
    words.extend(command.map(str::to_owned));
    words
}

/// The command as a person types it into a shell.
fn typed(words: &[String]) -> String {
    let mut text = "kubectl".to_owned();
    for word in words {
        // What cannot be quoted has a zero byte, which no argument of a process has.
        let quoted = shlex::try_quote(word).unwrap_or_default();
        text.push(' ');
        text.push_str(&quoted);
    }
    text
}
