//! Restarts watches with a new list.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;

/// Restarts watches, with a new list.
#[derive(Debug, Default)]
pub(crate) struct Relists(Mutex<HashMap<&'static str, watch::Sender<u64>>>);

impl Relists {
    /// Starts each watch of these kinds again.
    pub(crate) fn request(&self, kind: impl Fn(&str) -> bool) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = all.iter().filter(|(known, _)| kind(known));
        concerned.for_each(|(_, begin)| begin.send_modify(|times| *times += 1));
    }

    /// The events of a watch of this kind. The watch is created again at each request.
    pub(crate) fn of<S>(
        &self,
        kind: &'static str,
        make: impl Fn() -> S + Send + 'static,
    ) -> impl Stream<Item = S::Item> + Send + 'static
    where
        S: Stream + Send + 'static,
        S::Item: Send,
    {
        let begin = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(kind).or_default().subscribe()
        };
        let events = make().boxed();
        stream::unfold((events, make, begin), |(mut events, make, mut begin)| async move {
            loop {
                tokio::select! {
                    biased;
                    // The channel closes when all owners are dropped. Then no task reads the events.
                    Ok(()) = begin.changed() => events = make().boxed(),
                    event = events.next() => return Some((event?, (events, make, begin))),
                }
            }
        })
    }
}
