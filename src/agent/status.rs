//! `status`: prints how the operator treats the instances.

use std::io::Write;

use anyhow::{Context, Result};
use beatkeeper_api::{InstanceStatus, ServiceRegistration, duration, text::plain};
use beatkeeper_client::reading::Read;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

/// Which instances, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the ServiceRegistration [default: all in the namespace].
    #[arg(long, env = "BEATKEEPER_REGISTRATION", value_name = "NAME")]
    registration: Option<String>,
    /// The namespace [default: that of the kubeconfig's context, or of the agent's Pod].
    #[arg(long, short, env = "BEATKEEPER_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Format of the output.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs: a list of objects, with the fields of status.instances.
    Json,
}

/// One line of the output.
#[derive(Serialize)]
struct Row {
    namespace: String,
    registration: String,
    #[serde(flatten)]
    instance: InstanceStatus,
}

const COLUMNS: [&str; 8] =
    ["REGISTRATION", "INSTANCE", "STATE", "REASON", "SINCE", "LAST BEAT", "ADDRESSES", "MESSAGE"];

/// Prints the status of each instance.
///
/// # Errors
/// The registration does not exist, or the user may not read it.
pub async fn print(args: Args, client: Client, default_namespace: &str) -> Result<()> {
    let namespace = args.namespace.as_deref().unwrap_or(default_namespace);
    let api = Api::<Read<ServiceRegistration>>::namespaced(client, namespace);
    let registrations: Vec<Read<_>> = match &args.registration {
        Some(name) => {
            let got = api.get_opt(name).await;
            let got = got.with_context(|| format!("cannot read {namespace}/{name}"))?;
            vec![got.with_context(|| {
                format!("ServiceRegistration {namespace}/{name} does not exist")
            })?]
        }
        None => {
            let listed = api.list(&ListParams::default()).await;
            listed
                .with_context(|| format!("cannot list the ServiceRegistrations of {namespace}"))?
                .items
        }
    };
    let rows: Vec<Row> = registrations.iter().flat_map(|Read(one)| rows(one)).collect();
    let text = match args.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&rows)?),
        Format::Table if rows.is_empty() => format!("no instances in {namespace}\n"),
        Format::Table => table(&rows, Timestamp::now()),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")?;
    // Programs can count with the fields of the JSON; in the table, people get a note.
    if let Format::Table = args.output {
        for note in registrations.iter().filter_map(|Read(one)| omitted(one)) {
            writeln!(std::io::stderr(), "{note}").context("cannot print")?;
        }
    }
    Ok(())
}

fn rows(registration: &ServiceRegistration) -> Vec<Row> {
    let row = |instance: &InstanceStatus| Row {
        namespace: registration.namespace().unwrap_or_default(),
        registration: registration.name_any(),
        instance: instance.clone(),
    };
    registration.status.iter().flat_map(|status| &status.instances).map(row).collect()
}

/// The note about instances that a status leaves out: it lists a limited number, those in trouble first.
fn omitted(registration: &ServiceRegistration) -> Option<String> {
    let status = registration.status.as_ref()?;
    let total = usize::try_from(status.total).unwrap_or(0);
    let more = total.checked_sub(status.instances.len()).filter(|more| *more > 0)?;
    let name = registration.name_any();
    Some(format!("{name} has {more} instances more, none of them in more trouble than these"))
}

/// Formats columns as wide as their content, as kubectl prints them.
fn table(rows: &[Row], now: Timestamp) -> String {
    let ago = |time: &Option<Time>| {
        let seconds = time.as_ref().map(|time| now.as_second() - time.0.as_second());
        let seconds = seconds.map(|some| u64::try_from(some).unwrap_or(0));
        seconds.map_or_else(
            || "-".to_owned(),
            |some| duration::format(std::time::Duration::from_secs(some)),
        )
    };
    let cells = |row: &Row| {
        let InstanceStatus { name, state, reason, addresses, message, since, last_beat } =
            &row.instance;
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") };
        let (registration, since, last_beat) = (&row.registration, ago(since), ago(last_beat));
        [registration, name, state, reason, &since, &last_beat, &addresses, message]
            .map(|cell| plain(cell).into_owned())
    };
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widest = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(widest).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += padded.join("   ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let now = Timestamp::from_second(1_000).expect("a time");
        let at = |second| Some(Time(Timestamp::from_second(second).expect("a time")));
        let ready = InstanceStatus {
            name: "vm-1".to_owned(),
            state: "Ready".to_owned(),
            addresses: vec!["192.0.2.1".to_owned(), "::1".to_owned()],
            since: at(900),
            last_beat: at(998),
            reason: "Beating".to_owned(),
            message: "its beats arrive in time".to_owned(),
        };
        let waiting = InstanceStatus {
            name: "database-2".to_owned(),
            state: "Waiting".to_owned(),
            reason: "NeverBeat".to_owned(),
            ..InstanceStatus::default()
        };
        let row = |instance| Row {
            namespace: "shop".to_owned(),
            registration: "greeter".to_owned(),
            instance,
        };
        assert_eq!(
            table(&[row(ready), row(waiting)], now),
            "\
REGISTRATION   INSTANCE     STATE     REASON      SINCE   LAST BEAT   ADDRESSES       MESSAGE
greeter        vm-1         Ready     Beating     1m40s   2s          192.0.2.1,::1   its beats arrive in time
greeter        database-2   Waiting   NeverBeat   -       -           -
"
        );
    }
}
