//! `support-bundle`: gathers what is needed to find the cause of a problem from afar.

use std::path::PathBuf;

use clap::Args;

use crate::{
    bundle::{archive::Archive, collect::Bundle, contents::Contents},
    error::{Error, Outcome},
    flags::ConnectionFlags,
    gather::scope::Scope,
    output::Output,
    session::Session,
    signals::End,
    sizes,
};

/// The arguments of `support-bundle`.
#[derive(Debug, Clone, Args)]
pub struct SupportBundleArgs {
    /// Where to write it. Default: a name with the time, in the current folder.
    #[arg(short, long, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
    /// Look at all namespaces, whatever --namespace says.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// Writes the bundle, and says what it holds.
///
/// # Errors
/// [`Error`], if the cluster cannot be reached, or the file cannot be written. Then there is none.
pub async fn run(
    args: &SupportBundleArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let session = Session::open(connection).await?;
    let scope = match args.all_namespaces {
        true => Scope::All,
        false => Scope::Namespace(session.namespace.clone()),
    };
    let name = format!("beatkeeper-support-{}", session.clock.now().strftime("%Y%m%dT%H%M%SZ"));
    let to = args.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    let archive = Archive::begin(&to, &name).map_err(Error::Bundle)?;
    let bundle = Bundle { session: &session, archive, contents: Contents::default() };
    let (contents, size) = tokio::select! {
        filled = filled(bundle, &scope) => filled?,
        // What was written so far is removed.
        () = end.asked() => return Err(Error::Interrupted),
    };
    for error in contents.errors() {
        output.remark(&format!("not read: {error}"));
    }
    let file = to.display();
    output.text(&format!(
        "{}{file}: {} about {scope}. It holds no Secrets, no tokens and no values of environment variables.\n\
         Check it before you send it: tar xzf {file}\n",
        contents.table(),
        sizes::size(size),
    ))?;
    Ok(Outcome::Well)
}

async fn filled(mut bundle: Bundle<'_>, scope: &Scope) -> Result<(Contents, u64), Error> {
    bundle.add_versions().await?;
    bundle.add_definition().await?;
    bundle.add_registrations(scope).await?;
    bundle.add_operator(scope).await?;
    bundle.finish()
}
