//! A list and a watch of it, for ever: as kube's watcher, but that one object that cannot be read costs
//! itself only, and that no more than one is held.

use std::{io, io::ErrorKind, marker::PhantomData, time::Duration};

use futures::{AsyncBufReadExt, Stream, stream};
use kube::{
    Error,
    api::WatchParams,
    core::{self, Status},
    runtime::watcher::{self, Event},
};
use serde::Deserialize;

use super::list::{Body, Collection, Cursor, End, Page};
use beatkeeper_core::reading::{self, Read, Readable};

#[cfg(test)]
mod tests;

/// After this long the API server ends a watch.
const WATCH_SECONDS: u32 = 290;
/// Longer than that nothing comes only from a connection that is dead.
const IDLE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// The API server no longer has the history that is asked for: only a list helps.
const GONE: u16 = 410;

/// Lists and watches, and begins again after whatever error; the caller sets the pace. What it is told
/// is what kube's watcher tells: a list is announced before it is asked for.
pub fn observe<K: Readable + Send + 'static>(
    collection: Collection,
) -> impl Stream<Item = watcher::Result<Event<Read<K>>>> + Send {
    let observer = Observer { collection, kind: PhantomData::<fn() -> K> };
    stream::unfold((observer, State::Begin), |(observer, state)| async move {
        let (event, state) = observer.next(state).await;
        Some((event, (observer, state)))
    })
}

enum State<K> {
    Begin,
    ToList(Cursor),
    Listing(Page<K>),
    /// From this version on.
    ToWatch(String),
    Watching(Body, Vec<u8>, String),
}

struct Observer<K> {
    collection: Collection,
    kind: PhantomData<fn() -> K>,
}

/// Something to tell, or only another state.
type Step<K> = (Option<watcher::Result<Event<Read<K>>>>, State<K>);

impl<K: Readable> Observer<K> {
    async fn next(&self, mut state: State<K>) -> (watcher::Result<Event<Read<K>>>, State<K>) {
        loop {
            let (event, next) = match state {
                State::Begin => (Some(Ok(Event::Init)), State::ToList(Cursor::default())),
                State::ToList(cursor) => match self.collection.page(&cursor).await {
                    Ok(page) => (None, State::Listing(page)),
                    Err(error) => (Some(Err(list_failed(error))), State::Begin),
                },
                State::Listing(page) => listing(page).await,
                State::ToWatch(version) => self.watch(version).await,
                State::Watching(body, line, version) => watching(body, line, version).await,
            };
            match event {
                Some(event) => return (event, next),
                None => state = next,
            }
        }
    }

    async fn watch(&self, version: String) -> Step<K> {
        let Collection { path, labels, metadata_only, .. } = &self.collection;
        let params = WatchParams {
            label_selector: labels.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let path = core::Request::new(path);
        let request = match metadata_only {
            true => path.watch_metadata(&params, &version),
            false => path.watch(&params, &version),
        };
        let sent = match request {
            Ok(request) => self.collection.send(request).await,
            Err(error) => Err(Error::BuildRequest(error)),
        };
        match sent {
            Ok(body) => (None, State::Watching(body, Vec::new(), version)),
            Err(error) => {
                let gone = matches!(&error, Error::Api(status) if status.code == GONE);
                let next = if gone { State::Begin } else { State::ToWatch(version) };
                (Some(Err(watcher::Error::WatchStartFailed(error))), next)
            }
        }
    }
}

fn list_failed(error: Error) -> watcher::Error {
    watcher::Error::InitialListFailed(error)
}

async fn listing<K: Readable>(mut page: Page<K>) -> Step<K> {
    match page.next().await {
        Ok(Some(object)) => return (Some(Ok(Event::InitApply(object))), State::Listing(page)),
        Ok(None) => {}
        Err(error) => return (Some(Err(list_failed(error))), State::Begin),
    }
    match page.end() {
        Ok(End { next: Some(cursor), .. }) => (None, State::ToList(cursor)),
        Ok(End { version: Some(version), .. }) => {
            (Some(Ok(Event::InitDone)), State::ToWatch(version))
        }
        Ok(End { version: None, .. }) => {
            (Some(Err(watcher::Error::NoResourceVersion)), State::Begin)
        }
        Err(error) => (Some(Err(list_failed(error))), State::Begin),
    }
}

/// The next line of a watch; each is an event.
async fn watching<K: Readable>(mut body: Body, mut line: Vec<u8>, version: String) -> Step<K> {
    line.clear();
    line.shrink_to(64 * 1024);
    let failed = |error| Some(Err(watcher::Error::WatchFailed(Error::ReadEvents(error))));
    match tokio::time::timeout(IDLE, body.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) if line.last() == Some(&b'\n') => {}
        // It ended, in the middle of an event or between two; or the connection is dead.
        Ok(Ok(_)) | Err(_) => return (None, State::ToWatch(version)),
        Ok(Err(error)) if ended(&error) => return (None, State::ToWatch(version)),
        Ok(Err(error)) => return (failed(error), State::ToWatch(version)),
    }
    let reading::Event { kind, version: newer, object } = match reading::read_event::<K>(&line) {
        Ok(event) => event,
        // What it was about is not known. A list shows it.
        Err(_) => {
            let error = io::Error::new(ErrorKind::InvalidData, "a line of a watch is no event");
            return (failed(error), State::Begin);
        }
    };
    let event = match kind.as_str() {
        "ADDED" | "MODIFIED" => Some(Event::Apply(object)),
        "DELETED" => Some(Event::Delete(object)),
        "ERROR" => return refused(&line, body, version),
        // A bookmark, or something newer than this program.
        _ => None,
    };
    let version = newer.filter(|newer| !newer.is_empty()).unwrap_or(version);
    (event.map(Ok), State::Watching(body, line, version))
}

/// The API server says in a watch that something is wrong.
fn refused<K>(line: &[u8], body: Body, version: String) -> Step<K> {
    #[derive(Deserialize)]
    struct Refusal {
        object: Status,
    }
    // One that cannot be read is taken for the one that matters.
    let status = serde_json::from_slice::<Refusal>(line).map_or_else(
        |_| Status::failure("the watch has ended", "Expired").with_code(GONE),
        |refusal| refusal.object,
    );
    let next = match status.code {
        GONE => State::Begin,
        _ => State::Watching(body, Vec::new(), version),
    };
    (Some(Err(watcher::Error::WatchError(Box::new(status)))), next)
}

/// Whether a body ended where it should have gone on, as when the API server is stopped.
fn ended(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    // Bounded, in case one is its own cause.
    for _ in 0..16 {
        let Some(error) = cause else { return false };
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == ErrorKind::UnexpectedEof)
            || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
