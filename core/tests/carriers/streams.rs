//! The streams between replicas and gateways. A stream keeps the order; it can hang in each direction, and break.

use std::collections::VecDeque;

use beatkeeper_core::carriers::frames::{Down, Up};

/// What is under way.
#[derive(Debug, Clone)]
pub enum Frame {
    Down(Down),
    Up(Up),
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub struct Direction {
    /// Whether nothing arrives for now.
    pub hangs: bool,
    /// What waits for the end of that.
    pub held: VecDeque<Frame>,
    /// When the last frame arrives.
    pub last: u64,
}

/// The way between a replica and a gateway, and the stream on it.
#[derive(Debug, Default)]
pub struct Way {
    /// The number of the stream; `None` while there is none.
    pub stream: Option<u64>,
    /// How many faults cut the way.
    pub cuts: u32,
    pub down: Direction,
    pub up: Direction,
}

impl Way {
    pub fn direction(&mut self, frame: &Frame) -> &mut Direction {
        match frame {
            Frame::Down(_) => &mut self.down,
            Frame::Up(_) => &mut self.up,
        }
    }

    /// Begins a stream.
    pub fn open(&mut self, stream: u64) {
        self.stream = Some(stream);
        self.down.held.clear();
        self.up.held.clear();
    }
}
