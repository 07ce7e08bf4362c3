//! What stands behind completion in kubectl: the script `kubectl_complete-beatkeeper` passes the words of the command
//! line on, and prints the answer. Its form is that of kubectl's own completion: a candidate a line, a tab before its
//! description, and a last line with what the shell is to do.

use std::time::Duration;

use clap::{Arg, Args, Command};
use tokio::time::timeout;

use crate::{
    error::{Error, Outcome},
    flags::ConnectionFlags,
    gather::{
        gather,
        scope::{Scope, Wanted},
    },
    model::assemble,
    output::Output,
    session::Session,
};

/// The arguments of `__complete`.
#[derive(Debug, Clone, Args)]
pub struct CompleteArgs {
    /// The words behind `kubectl beatkeeper`; the last one is to be completed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Names from the cluster that do not come within this time are left out. A person waits for the shell.
const WITHIN: Duration = Duration::from_secs(3);

/// The value name of an argument that is the name of a registration.
const REGISTRATION: &str = "NAME";
/// The value name of an argument that is a registration and one of its instances.
const INSTANCE: &str = "NAME/INSTANCE";

/// The last line: no file names are candidates.
const NO_FILES: &str = ":4\n";

/// A candidate and its description.
type Candidate = (String, String);

/// What the last word can be.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// One of these.
    Known(Vec<Candidate>),
    /// A registration, or one of its instances.
    FromCluster { instances: bool },
}

/// Prints the candidates. Whatever fails, a shell must not see an error.
///
/// # Errors
/// If nothing can be printed.
pub async fn run(
    args: &CompleteArgs,
    command: &Command,
    output: &Output,
) -> Result<Outcome, Error> {
    let (before, last) = match args.words.split_last() {
        Some((last, before)) => (before, last.as_str()),
        None => (&[][..], ""),
    };
    let candidates = match wish(command, before, last) {
        Wish::Known(candidates) => candidates,
        Wish::FromCluster { instances } => {
            let connection = connection(before);
            timeout(WITHIN, names(&connection, instances))
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default()
        }
    };
    let fitting = candidates.iter().filter(|(name, _)| name.starts_with(last));
    let lines: String = fitting.map(|(name, about)| format!("{name}\t{about}\n")).collect();
    output.text(&(lines + NO_FILES))?;
    Ok(Outcome::Well)
}

/// What the last word can be, after the words before it.
fn wish(root: &Command, before: &[String], last: &str) -> Wish {
    let mut command = root;
    let mut words = before.iter();
    let mut places = 0;
    while let Some(word) = words.next() {
        if let Some(flag) = flag(root, command, word) {
            let has_value = flag.get_action().takes_values() && !word.contains('=');
            if has_value && words.next().is_none() {
                return Wish::Known(values(flag));
            }
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else {
            places += 1;
        }
    }
    if last.starts_with('-') {
        return Wish::Known(flags(root, command));
    }
    if command.has_subcommands() {
        let commands = command.get_subcommands().filter(|it| !it.is_hide_set());
        return Wish::Known(
            commands.map(|it| (it.get_name().to_owned(), about(it.get_about()))).collect(),
        );
    }
    match command.get_positionals().nth(places) {
        Some(place) => positional(place),
        None => Wish::Known(Vec::new()),
    }
}

fn positional(place: &Arg) -> Wish {
    let name = place.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match name {
        Some(REGISTRATION) => Wish::FromCluster { instances: false },
        Some(INSTANCE) => Wish::FromCluster { instances: true },
        _ => Wish::Known(values(place)),
    }
}

fn flag<'a>(root: &'a Command, command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or_default();
    let all = command.get_arguments().chain(root.get_arguments());
    let mut flags = all.filter(|arg| !arg.is_positional());
    flags.find(|arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => name.strip_prefix('-').is_some_and(|it| {
            arg.get_short().is_some_and(|short| it.len() == 1 && it.starts_with(short))
        }),
    })
}

fn flags(root: &Command, command: &Command) -> Vec<Candidate> {
    let all = command.get_arguments().chain(root.get_arguments());
    let shown = all.filter(|arg| !arg.is_hide_set());
    let mut flags: Vec<Candidate> = shown
        .filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))))
        .collect();
    flags.sort();
    flags.dedup();
    flags
}

fn values(arg: &Arg) -> Vec<Candidate> {
    let values = arg.get_possible_values().into_iter();
    values.map(|it| (it.get_name().to_owned(), about(it.get_help()))).collect()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// The connection that the words before choose.
fn connection(words: &[String]) -> ConnectionFlags {
    let mut flags = ConnectionFlags::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || given.clone().or_else(|| words.next().cloned());
        match name {
            "-n" | "--namespace" => flags.namespace = value(),
            "--context" => flags.context = value(),
            "--kubeconfig" => flags.kubeconfig = value().map(Into::into),
            "--as" => flags.act_as = value(),
            _ => {}
        }
    }
    flags
}

/// The names of the registrations of the namespace, or of their instances.
async fn names(flags: &ConnectionFlags, instances: bool) -> Result<Vec<Candidate>, Error> {
    let session = Session::open(flags).await?;
    let scope = Scope::Namespace(session.namespace.clone());
    let store = gather(&session, &Wanted { scope, ..Wanted::default() }).await?;
    let mut names = Vec::new();
    for view in assemble::picture(&store, session.clock.now()).registrations {
        let name = &view.key.name;
        if instances {
            let all = view.instances.iter();
            names.extend(
                all.map(|it| (format!("{name}/{}", it.name), it.state.as_str().to_owned())),
            );
        } else {
            names.push((name.clone(), view.reported.reason().to_owned()));
        }
    }
    Ok(names)
}
