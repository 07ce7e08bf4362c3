//! Reads frames from a stream, and writes bytes to one, each with a limit of time.

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use beatkeeper_core::carriers::frames::Up;

use crate::{
    settings::StreamLimits,
    streams::ended::Ended,
    wire::{codec::Frames, down::FromReplica},
};

/// How many bytes are read at once.
const CHUNK: usize = 16 * 1024;

/// The end of a stream that is read.
#[derive(Debug)]
pub struct Reading<R> {
    reader: R,
    buffer: BytesMut,
    frames: Frames,
    limits: StreamLimits,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    /// Reads with these limits.
    pub fn new(reader: R, limits: StreamLimits) -> Self {
        Self { reader, buffer: BytesMut::new(), frames: Frames::new(limits.frame_bytes), limits }
    }

    /// Waits for further bytes. Any byte is a sign of life, so a long frame may take its time.
    async fn fill(&mut self) -> Result<(), Ended> {
        let silence = self.limits.silence;
        self.buffer.reserve(CHUNK);
        let read = timeout(silence, self.reader.read_buf(&mut self.buffer)).await;
        match read.map_err(|_| Ended::Silent(silence))?.map_err(Ended::Io)? {
            0 => Err(Ended::ClosedThere),
            _ => Ok(()),
        }
    }

    /// The next frame of a gateway.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next_up(&mut self) -> Result<Up, Ended> {
        loop {
            if let Some(frame) = self.frames.next_up(&mut self.buffer)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The next frame of a replica.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next_down(&mut self) -> Result<FromReplica, Ended> {
        loop {
            if let Some(frame) = self.frames.next_down(&mut self.buffer)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }
}

/// Writes all bytes. The other end has to read some of them again and again.
///
/// # Errors
/// [`Ended`].
pub async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    mut bytes: BytesMut,
    limits: &StreamLimits,
) -> Result<(), Ended> {
    let stalled = |_| Ended::Stalled(limits.stall);
    while bytes.has_remaining() {
        let written = timeout(limits.stall, writer.write_buf(&mut bytes)).await;
        if written.map_err(stalled)?.map_err(Ended::Io)? == 0 {
            return Err(Ended::ClosedThere);
        }
    }
    timeout(limits.stall, writer.flush()).await.map_err(stalled)?.map_err(Ended::Io)
}
