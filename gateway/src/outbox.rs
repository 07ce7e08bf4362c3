//! What waits to be written to one stream, in bounded memory.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::wire::codec::TooLongToSend;

/// Why nothing more can be sent on a stream.
#[derive(Debug, thiserror::Error)]
pub enum Undeliverable {
    /// The other end reads too slowly.
    #[error("{waiting} bytes wait for the other end")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// A frame is too long.
    #[error(transparent)]
    TooLong(#[from] TooLongToSend),
}

/// The bytes that wait for one stream.
#[derive(Debug)]
pub struct Outbox {
    waiting: RefCell<BytesMut>,
    limit: usize,
    closed: Cell<bool>,
    changed: Notify,
}

impl Outbox {
    /// An outbox for at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: RefCell::default(),
            limit,
            closed: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// [`Undeliverable`]: the stream has to be cut.
    pub fn put(
        &self,
        frame: impl FnOnce(&mut BytesMut) -> Result<(), TooLongToSend>,
    ) -> Result<(), Undeliverable> {
        let mut waiting = self.waiting.borrow_mut();
        frame(&mut waiting)?;
        if waiting.len() > self.limit {
            return Err(Undeliverable::Full { waiting: waiting.len() });
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Lets the writer end at once, with what waits unsent.
    pub fn close(&self) {
        self.closed.set(true);
        *self.waiting.borrow_mut() = BytesMut::new();
        self.changed.notify_one();
    }

    /// Lets the writer end after it has sent what waits.
    pub fn finish(&self) {
        self.closed.set(true);
        self.changed.notify_one();
    }

    /// All that waits. Returns `None` at the end.
    pub async fn take(&self) -> Option<BytesMut> {
        loop {
            let waiting = self.waiting.borrow_mut().split();
            if !waiting.is_empty() {
                return Some(waiting);
            }
            if self.closed.get() {
                return None;
            }
            self.changed.notified().await;
        }
    }
}
