//! The page `docs/agent-reference.md`, made from the flags.

use std::fmt::Write;

use clap::{Arg, CommandFactory, Parser};

use super::{command::Command, settings::Settings};

const HEAD: &str = "\
# beatkeeper agent: reference

<!-- Generated from the code: cargo run -- agent-reference > docs/agent-reference.md -->

[docs/agent.md](agent.md) says which command to use when.

";

const SETTINGS: &str = "
## Settings

For `run`, `exec`, `proxy` and `register`. A flag overrides its variable, and both override the file that `--config` names.
Durations are written as `30s`, `500ms` or `1m30s`.

| Flag | Variable | In the file | |
|---|---|---|---|
";

const INSTANCES: &str = "\
| | | `instances` | Many instances in one agent: a list of the same settings, but not `drainDelay`, `onStop`, \
`healthBindAddress`, `metricsBindAddress`, `gateways`, `gatewayCaFile` and `gatewayTokenFile`. A setting outside the list applies to all entries. |
";

const FLAGS: &str = "
## Flags of the commands

`heartbeat`, `drain`, `deregister` and `status` take `--registration` and `--namespace`, and all but `status`
also take `--instance`. Further flags:
";

#[derive(Parser)]
struct All {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Parser)]
struct Commands {
    #[command(flatten)]
    command: Command,
}

/// Returns the page as Markdown.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    page += "| Command | |\n|---|---|\n";
    for command in Commands::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, "| `beatkeeper agent {}` | {about}. |", command.get_name());
    }
    page += SETTINGS;
    All::command().get_arguments().for_each(|arg| page += &row(arg));
    page += INSTANCES;
    page += FLAGS;
    for command in Commands::command().get_subcommands() {
        let shared = All::command();
        let own = |arg: &&Arg| !shared.get_arguments().any(|one| one.get_id() == arg.get_id());
        let own: Vec<&Arg> = command.get_arguments().filter(own).collect();
        if own.is_empty() {
            continue;
        }
        let _ = writeln!(page, "\n`{}`:\n", command.get_name());
        for arg in own {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let flag = flag(arg).unwrap_or_else(|| format!("-- {}", value(arg)));
            let variable = variable(arg).map(|name| format!(" (`{name}`)")).unwrap_or_default();
            let _ = writeln!(page, "* `{flag}`{variable}: {help}");
        }
    }
    page
}

fn row(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let flag = flag(arg).unwrap_or_default();
    let variable = variable(arg).unwrap_or_default();
    format!("| `{flag}` | `{variable}` | `{}` | {help} |\n", key(arg.get_id().as_str()))
}

fn flag(arg: &Arg) -> Option<String> {
    let long = arg.get_long()?;
    let takes_value = arg.get_action().takes_values();
    Some(if takes_value { format!("--{long} {}", value(arg)) } else { format!("--{long}") })
}

fn value(arg: &Arg) -> String {
    arg.get_value_names()
        .and_then(|names| names.first())
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// The key of a field in a file, as serde derives it from the name of the field.
fn key(id: &str) -> String {
    let mut words = id.split('_');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        key += &word[..1].to_uppercase();
        key += &word[1..];
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_code_generates() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/agent-reference.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            written == page(),
            "docs/agent-reference.md is not what the code generates; run \
             `cargo run -- agent-reference > docs/agent-reference.md`"
        );
    }

    #[test]
    fn the_keys_on_the_page_are_those_that_a_file_takes() {
        for arg in All::command().get_arguments() {
            let file = format!("{}: {{ no: {{ such: value }} }}", key(arg.get_id().as_str()));
            let error = serde_saphyr::from_str::<Settings>(&file).expect_err(&file).to_string();
            assert!(!error.contains("unknown field"), "{error}");
        }
    }
}
