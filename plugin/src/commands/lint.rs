//! `lint`: checks registrations in files, without a cluster.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use beatkeeper_core::vocabulary::address::{OutsideRange, OutsideRanges};
use clap::Args;

use crate::{
    error::{Error, Outcome},
    flags::ConnectionFlags,
    lint::{self, Source, mistake::Level},
    output::{Form, Output},
    render,
};

/// The arguments of `lint`.
#[derive(Debug, Clone, Args)]
pub struct LintArgs {
    /// Files or folders with YAML or JSON; - is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Look into the folders of folders, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Exit with 1 also if there is only advice.
    #[arg(long)]
    strict: bool,
    /// A range that the operator allows for outside instances, such as shop=192.0.2.0/24; may be repeated. Without any,
    /// no address is compared with a range.
    #[arg(long = "outside-range", value_name = "NAMESPACE=CIDR")]
    outside_ranges: Vec<OutsideRange>,
    /// The form of the output. Default: each finding with what to do, and a summary.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Form>,
}

/// The endings of files that are read in a folder, as with kubectl.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Checks the files. The outcome is that something was found if there is an error, or advice with `--strict`.
///
/// # Errors
/// [`Error`], if a file cannot be read.
pub fn run(
    args: &LintArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut sources = Vec::new();
    for file in &args.files {
        read(file, args.recursive, &mut sources)?;
    }
    let namespace = connection.namespace.as_deref().unwrap_or("default");
    let ranges: OutsideRanges = args.outside_ranges.iter().cloned().collect();
    let ranges = (!args.outside_ranges.is_empty()).then_some(&ranges);
    let report = lint::lint(&sources, namespace, ranges);
    match args.output.and_then(Form::document) {
        Some(document) => output.document(document, &render::lint::document(&report))?,
        None => output.lines(&render::lint::lines(&report, args.output.is_none()))?,
    }
    if report.registrations == 0 {
        output.remark("There is no ServiceRegistration in what was read.");
    }
    let errors = report.count(Level::Error);
    let advice = if args.strict { report.count(Level::Advice) } else { 0 };
    Ok(if errors + advice == 0 { Outcome::Well } else { Outcome::Found })
}

/// Reads a file, or those of a folder in the order of their names.
fn read(path: &Path, recursive: bool, sources: &mut Vec<Source>) -> Result<(), Error> {
    let name = path.display().to_string();
    let unreadable = |cause| Error::File { name: name.clone(), cause };
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        sources.push(Source { name: "stdin".to_owned(), text });
        return Ok(());
    }
    if !path.is_dir() {
        let text = fs::read_to_string(path).map_err(unreadable)?;
        sources.push(Source { name, text });
        return Ok(());
    }
    let entries: io::Result<Vec<_>> = fs::read_dir(path).map_err(unreadable)?.collect();
    let mut entries: Vec<PathBuf> =
        entries.map_err(unreadable)?.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        let ending = entry.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_wanted = if entry.is_dir() { recursive } else { ENDINGS.contains(&ending) };
        if is_wanted {
            read(&entry, recursive, sources)?;
        }
    }
    Ok(())
}
