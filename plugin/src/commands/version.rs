//! `version`: says which version of the plugin this is.

use clap::Args;
use serde::Serialize;

use crate::{
    error::{Error, Outcome},
    output::{Document, Output},
};

/// The arguments of `version`.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// The form of the output. Default: text.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Document>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    api_version: String,
}

/// Prints the version.
///
/// # Errors
/// If it cannot be printed.
pub fn run(args: &VersionArgs, output: &Output) -> Result<Outcome, Error> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        api_version: format!("{}/{}", beatkeeper_api::GROUP, beatkeeper_api::VERSION),
    };
    match args.output {
        Some(document) => output.document(document, &version)?,
        None => output.text(&format!(
            "kubectl-beatkeeper {}, reads {}\n",
            version.version, version.api_version
        ))?,
    }
    Ok(Outcome::Well)
}
