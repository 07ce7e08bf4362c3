//! Serves the page on this computer.

use std::{net::SocketAddr, process::Stdio};

use tokio::{net::TcpListener, process::Command};

use super::{
    feed::{Bounds, Feed},
    gate::Gate,
    operator::Source,
    pages::{Site, router},
    readers::Readers,
};
use crate::{
    error::{Error, Outcome},
    gather::scope::Wanted,
    leader::standing::Asker,
    output::Output,
    session::Session,
    signals::End,
};

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on; port 0 for a free one.
    pub at: SocketAddr,
    /// Whether to open the page in a browser.
    pub open: bool,
    /// Where to look for the operator.
    pub source: Source,
}

/// Serves the page until the user ends it. `leader` asks the leader for the arguments. The address is printed once it answers.
///
/// # Errors
/// [`Error`], if the address is in use, or the registration does not exist.
pub async fn run(
    session: &Session,
    wanted: &Wanted,
    settings: Settings,
    leader: Asker,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let feed = Feed::start(session, wanted, settings.source, Bounds::default()).await?;
    let refused = |cause| Error::Listen { at: settings.at, cause };
    let listener = TcpListener::bind(settings.at).await.map_err(refused)?;
    let at = listener.local_addr().map_err(refused)?;
    let readers = Readers::Own { session: session.clone(), feed, leader: Box::new(leader) };
    let site = Site { gate: Gate::new(at), readers };
    let url = format!("http://{at}{}/", site.gate.prefix());
    output.text(&format!("{url}\n"))?;
    output.remark(&format!(
        "This page shows {} to every program on this computer that knows its address. Ctrl-C ends it.",
        wanted.scope
    ));
    if settings.open {
        open(&url, output);
    }
    let served = axum::serve(listener, router(site));
    tokio::select! {
        served = served => served.map(|()| Outcome::Well).map_err(Error::Start),
        // Without waiting for the open pages, which read for ever.
        () = end.asked() => Ok(Outcome::Well),
    }
}

/// Opens the page in the browser that the system prefers.
fn open(url: &str, output: &Output) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        output.remark(&format!("cannot open a browser with {program}: {error}"));
    }
}
