//! What the API server lets the operator read.

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

use beatkeeper_core::replica::access::{Access, Need};

/// What the watches of a scope have found out about the right to read.
#[derive(Debug, Default)]
pub(crate) struct ReadAccess(watch::Sender<Access>);

impl ReadAccess {
    /// Notes that a watch of this kind begins.
    pub(crate) fn expect(&self, kind: &'static str) {
        let need = if kind == "Nodes" { Need::Helpful } else { Need::Necessary };
        self.0.send_modify(|access| access.expect(kind, need));
    }

    /// Takes in an event of a watch. Returns whether the event is a refusal.
    pub(crate) fn take<K>(&self, kind: &'static str, event: &watcher::Result<Event<K>>) -> bool {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => false,
            Ok(_) => {
                self.0.send_if_modified(|access| access.read(kind));
                false
            }
            Err(error) => {
                let Some(words) = refusal(error) else { return false };
                self.0.send_if_modified(|access| access.refused(kind, words));
                true
            }
        }
    }

    /// Follows what may be read.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Access> {
        self.0.subscribe()
    }

    /// Whether a necessary kind cannot be read, so that nothing can be decided.
    pub(crate) fn is_wanting(&self) -> bool {
        self.0.borrow().is_wanting()
    }

    /// Whether a kind is refused.
    pub(crate) fn is_refused(&self, kind: &str) -> bool {
        self.0.borrow().is_refused(kind)
    }

    /// Waits until this kind is refused and decisions do not need it. Never returns for a kind that they need.
    pub(crate) async fn not_needed(&self, kind: &str) {
        // This fails only after the sender is dropped, and `self` holds the sender.
        let _ = self.0.subscribe().wait_for(|access| access.is_dispensed_with(kind)).await;
    }
}

/// The events of a watch that is started again, with a list, after a refusal. A watch that only resumed would
/// report nothing when it is allowed again, for as long as no object changes.
pub(crate) fn relist_after_refusal<K, S>(
    make: impl Fn() -> S + Send + 'static,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Send + 'static,
    S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    stream::unfold((make().boxed(), make), |(mut events, make)| async move {
        let event = events.next().await?;
        match &event {
            // The watcher lists again by itself.
            Err(watcher::Error::InitialListFailed(_)) | Ok(_) => {}
            Err(error) if refusal(error).is_some() => events = make().boxed(),
            Err(_) => {}
        }
        Some((event, (events, make)))
    })
}

/// The message of the API server if it refuses a read with 403.
fn refusal(error: &watcher::Error) -> Option<&str> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return None,
    };
    (status.code == 403).then_some(status.message.as_str())
}
