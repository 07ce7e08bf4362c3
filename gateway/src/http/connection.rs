//! What a connection does now, so that one that misbehaves can be cut.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use crate::settings::Limits;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has no request since then.
    Idle(Instant),
    /// The head of a request has begun to come. HTTP/1.1 only: HTTP/2 has frames without a request.
    Head(Instant),
    /// So many requests are under way.
    Busy(usize),
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// It had no request for long.
    Idle,
    /// The head of a request does not come to its end.
    Head,
    /// The client does not read.
    Write,
}

impl Overdue {
    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "slow_head",
            Self::Write => "slow_reader",
        }
    }
}

/// Watches one connection.
#[derive(Debug)]
pub struct Watch {
    phase: Cell<Phase>,
    has_heads: bool,
    /// Since when something could not be written.
    stalled: Cell<Option<Instant>>,
    /// From when on the next answer ends the connection.
    moves: Instant,
    closes: Notify,
}

impl Watch {
    /// A connection that is new. `has_heads` says that it is HTTP/1.1.
    pub fn new(has_heads: bool, limits: &Limits, now: Instant) -> Self {
        Self {
            // The first head is due at once.
            phase: Cell::new(if has_heads { Phase::Head(now) } else { Phase::Idle(now) }),
            has_heads,
            stalled: Cell::new(None),
            // Connections that were made together do not end together.
            moves: now + limits.lasts.mul_f64(1.0 + fastrand::f64()),
            closes: Notify::new(),
        }
    }

    /// A request is under way until the returned value is dropped.
    pub fn begin(self: &Rc<Self>) -> Busy {
        let others = match self.phase.get() {
            Phase::Busy(others) => others,
            Phase::Idle(_) | Phase::Head(_) => 0,
        };
        self.phase.set(Phase::Busy(others + 1));
        Busy(self.clone())
    }

    fn has_read(&self) {
        if let (true, Phase::Idle(_)) = (self.has_heads, self.phase.get()) {
            self.phase.set(Phase::Head(Instant::now()));
        }
    }

    fn has_tried_to_write(&self, done: bool) {
        match (done, self.stalled.get()) {
            (true, Some(_)) => self.stalled.set(None),
            (false, None) => self.stalled.set(Some(Instant::now())),
            _ => {}
        }
    }

    /// Whether the client has to connect anew, to another gateway if it can: without this nothing would ever move a
    /// connection, and gateways that were added would relieve none.
    pub fn has_to_move(&self, now: Instant) -> bool {
        now >= self.moves
    }

    /// Lets the connection end after the requests that are under way.
    pub fn close(&self) {
        self.closes.notify_one();
    }

    /// Waits for that.
    pub async fn closes(&self) {
        self.closes.notified().await;
    }

    /// Whether the connection has to end.
    pub fn overdue(&self, limits: &Limits, now: Instant) -> Option<Overdue> {
        if self.stalled.get().is_some_and(|since| now >= since + limits.write) {
            return Some(Overdue::Write);
        }
        match self.phase.get() {
            Phase::Idle(since) => (now >= since + limits.idle).then_some(Overdue::Idle),
            Phase::Head(since) => (now >= since + limits.head).then_some(Overdue::Head),
            Phase::Busy(_) => None,
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct Busy(Rc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.phase.set(match self.0.phase.get() {
            Phase::Busy(others) if others > 1 => Phase::Busy(others - 1),
            _ => Phase::Idle(Instant::now()),
        });
    }
}

/// The bytes of a connection that is watched.
#[derive(Debug)]
pub struct Watched<T> {
    io: T,
    watch: Rc<Watch>,
}

impl<T> Watched<T> {
    /// Watches these bytes.
    pub fn new(io: T, watch: Rc<Watch>) -> Self {
        Self { io, watch }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watch.has_read();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch.has_tried_to_write(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.watch.has_tried_to_write(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.watch.has_tried_to_write(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits { head: SECOND, idle: 10 * SECOND, write: SECOND, ..Limits::default() }
    }

    /// The reason for which a connection has to end, each second from now on.
    fn reasons(watch: &Watch, seconds: u32) -> Vec<Option<Overdue>> {
        let now = Instant::now();
        (0..seconds).map(|n| watch.overdue(&limits(), now + n * SECOND)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_several_requests_is_idle_only_after_the_last_of_them() {
        let watch = Rc::new(Watch::new(false, &limits(), Instant::now()));
        let (one, other) = (watch.begin(), watch.begin());
        drop(one);
        assert_eq!(reasons(&watch, 12), [None::<Overdue>; 12], "a request is under way");
        tokio::time::advance(20 * SECOND).await;
        drop(other);
        let reasons = reasons(&watch, 12);
        assert_eq!(reasons[..10], [None::<Overdue>; 10], "it is idle from now on");
        assert_eq!(reasons[10..], [Some(Overdue::Idle); 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_with_heads_has_to_send_its_first_one_soon() {
        let first = |has_heads| reasons(&Watch::new(has_heads, &limits(), Instant::now()), 2);
        assert_eq!(first(true), [None, Some(Overdue::Head)]);
        assert_eq!(first(false), [None::<Overdue>; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_stalled_until_a_write_gets_through() {
        let watch = Rc::new(Watch::new(true, &limits(), Instant::now()));
        let _busy = watch.begin();
        watch.has_tried_to_write(false);
        tokio::time::advance(SECOND / 2).await;
        watch.has_tried_to_write(false);
        tokio::time::advance(SECOND / 2).await;
        assert_eq!(
            watch.overdue(&limits(), Instant::now()),
            Some(Overdue::Write),
            "since the first"
        );
        watch.has_tried_to_write(true);
        assert_eq!(watch.overdue(&limits(), Instant::now()), None);
    }

    #[test]
    fn connections_have_to_move_at_different_times_of_the_second_ten_minutes() {
        let (now, minute) = (Instant::now(), 60 * SECOND);
        let watches = [(); 64].map(|()| Watch::new(true, &Limits::default(), now));
        let moved = |after| watches.iter().filter(|it| it.has_to_move(now + after)).count();
        assert_eq!((moved(10 * minute - SECOND), moved(20 * minute)), (0, 64));
        let half = moved(15 * minute);
        assert!((1..64).contains(&half), "{half} of 64");
    }
}
