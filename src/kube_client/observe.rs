//! Lists and watches objects without end, as kube's watcher does, with two differences. An object that cannot be read
//! affects only itself, and at most one object is held at a time.

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
use beatkeeper_core::objects::decode::{self, Decode, Decoded};

#[cfg(test)]
mod tests;

/// The API server ends a watch after this many seconds.
const WATCH_SECONDS: u32 = 290;
/// If nothing arrives for longer than this, the connection is dead.
const IDLE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// The API server no longer has the requested history, so a new list is needed.
const GONE: u16 = 410;

/// Lists and watches, and starts again after any error. The caller sets the pace. The events are those of kube's
/// watcher: the start of a list is reported before the list is requested.
pub fn observe<K: Decode + Send + 'static>(
    collection: Collection,
) -> impl Stream<Item = watcher::Result<Event<Decoded<K>>>> + Send {
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
    /// The watch is to begin at this version.
    ToWatch(String),
    Watching(Body, Vec<u8>, String),
}

struct Observer<K> {
    collection: Collection,
    kind: PhantomData<fn() -> K>,
}

/// An event to report, if any, and the next state.
type Step<K> = (Option<watcher::Result<Event<Decoded<K>>>>, State<K>);

impl<K: Decode> Observer<K> {
    async fn next(&self, mut state: State<K>) -> (watcher::Result<Event<Decoded<K>>>, State<K>) {
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

async fn listing<K: Decode>(mut page: Page<K>) -> Step<K> {
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

/// Reads the next line of a watch. Each line is an event.
async fn watching<K: Decode>(mut body: Body, mut line: Vec<u8>, version: String) -> Step<K> {
    line.clear();
    line.shrink_to(64 * 1024);
    let failed = |error| Some(Err(watcher::Error::WatchFailed(Error::ReadEvents(error))));
    match tokio::time::timeout(IDLE, body.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) if line.last() == Some(&b'\n') => {}
        // The watch ended, in the middle of an event or between two events, or the connection is dead.
        Ok(Ok(_)) | Err(_) => return (None, State::ToWatch(version)),
        Ok(Err(error)) if ended(&error) => return (None, State::ToWatch(version)),
        Ok(Err(error)) => return (failed(error), State::ToWatch(version)),
    }
    let decode::Event { kind, version: newer, object } = match decode::read_event::<K>(&line) {
        Ok(event) => event,
        // The object of the event is unknown. A new list will show it.
        Err(_) => {
            let error = io::Error::new(ErrorKind::InvalidData, "a line of a watch is no event");
            return (failed(error), State::Begin);
        }
    };
    let event = match kind.as_str() {
        "ADDED" | "MODIFIED" => Some(Event::Apply(object)),
        "DELETED" => Some(Event::Delete(object)),
        "ERROR" => return refused(&line, body, version),
        // A bookmark, or a type of event that is newer than this program.
        _ => None,
    };
    let version = newer.filter(|newer| !newer.is_empty()).unwrap_or(version);
    (event.map(Ok), State::Watching(body, line, version))
}

/// Handles an error that the API server reports within a watch.
fn refused<K>(line: &[u8], body: Body, version: String) -> Step<K> {
    #[derive(Deserialize)]
    struct Refusal {
        object: Status,
    }
    // An error that cannot be read is treated as code 410, which requires a new list.
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

/// Whether a body ended before its end, as when the API server is stopped.
fn ended(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    // The loop is limited, in case an error is its own cause.
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
