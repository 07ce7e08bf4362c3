//! Frames in a stream of bytes.

use bytes::BytesMut;
use prost::Message;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use crate::wire::{
    down::{self, FromReplica},
    fields::FieldError,
    messages::{DownMessage, UpMessage},
    up,
};
use beatkeeper_core::carriers::frames::{Down, ReplicaName, Up};

/// The bytes of the length before each message.
const HEAD: usize = 4;

/// Why a stream has to be closed: the other end does not keep to the protocol.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A frame is longer than the limit.
    #[error("a frame is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
        /// What the codec says.
        #[source]
        cause: std::io::Error,
    },
    /// The bytes of a frame are no message.
    #[error("a frame is no message: {0}")]
    NoMessage(#[from] prost::DecodeError),
    /// A field has a value that it cannot have.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Puts frames into a buffer, and takes them out of another one.
#[derive(Debug)]
pub struct Frames {
    codec: LengthDelimitedCodec,
    limit: usize,
}

impl Frames {
    /// Frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .length_field_length(HEAD)
            .max_frame_length(limit)
            .new_codec();
        Self { codec, limit }
    }

    /// Takes the next whole frame out of a buffer. `None` if there is none yet, or no further one.
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, WireError> {
        let limit = self.limit;
        self.codec.decode(buffer).map_err(|cause| WireError::TooLong { limit, cause })
    }

    /// Takes the next frame of a gateway out of a buffer. Frames of kinds that this version does not know are skipped.
    ///
    /// # Errors
    /// [`WireError`]. The stream cannot be read any further.
    pub fn next_up(&mut self, buffer: &mut BytesMut) -> Result<Option<Up>, WireError> {
        while let Some(bytes) = self.next(buffer)? {
            if let Some(frame) = up::read(UpMessage::decode(bytes)?)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The same for a frame of a replica.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn next_down(&mut self, buffer: &mut BytesMut) -> Result<Option<FromReplica>, WireError> {
        while let Some(bytes) = self.next(buffer)? {
            if let Some(frame) = down::read(DownMessage::decode(bytes)?)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

/// Puts a frame of a gateway at the end of a buffer.
///
/// # Errors
/// [`TooLongToSend`]. The buffer is unchanged.
pub fn put_up(frame: &Up, limit: usize, buffer: &mut BytesMut) -> Result<(), TooLongToSend> {
    put(&up::write(frame), limit, buffer)
}

/// Puts a frame of a replica at the end of a buffer.
///
/// # Errors
/// [`TooLongToSend`]. The buffer is unchanged.
pub fn put_down(frame: &Down, limit: usize, buffer: &mut BytesMut) -> Result<(), TooLongToSend> {
    put(&down::write(frame), limit, buffer)
}

/// Puts the first frame of a replica, its name, at the end of a buffer.
///
/// # Errors
/// [`TooLongToSend`]. The buffer is unchanged.
pub fn put_name(
    name: &ReplicaName,
    limit: usize,
    buffer: &mut BytesMut,
) -> Result<(), TooLongToSend> {
    put(&down::name(name), limit, buffer)
}

/// A frame is longer than the other end accepts.
#[derive(Debug, thiserror::Error)]
#[error("a frame of {length} bytes is longer than {limit}")]
pub struct TooLongToSend {
    length: usize,
    limit: usize,
}

fn put(message: &impl Message, limit: usize, buffer: &mut BytesMut) -> Result<(), TooLongToSend> {
    let length = message.encoded_len();
    let Some(head) = u32::try_from(length).ok().filter(|_| length <= limit) else {
        return Err(TooLongToSend { length, limit });
    };
    buffer.reserve(HEAD + length);
    buffer.extend_from_slice(&head.to_be_bytes());
    // A BytesMut grows, so it never lacks room.
    let _ = message.encode(buffer);
    Ok(())
}
