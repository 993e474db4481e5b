//! Frames: `COBS( header, body, CRC-32 )` and a terminating `0x00`.
//!
//! The CRC covers header and body. Header, CRC and terminator are the same in every version of
//! the protocol.

use core::fmt;

use cobs::{DecodeResult, DecoderState};

use crate::layout::record;
use crate::message::{MAX_BODY, MAX_REPLY_BODY, Message};
use crate::wire::{Full, Reader, Wire, Writer, crc32};
use crate::{MAX_CHUNK_STEPS, PROTOCOL_VERSION};

/// Bytes of a header.
pub const HEADER: usize = Header::MAX;
const CRC_BYTES: usize = 4;

/// Longest frame before COBS: header, body and CRC.
pub const MAX_RAW: usize = HEADER + MAX_BODY + CRC_BYTES;

/// Longest frame on the wire: with COBS's overhead of one byte per 254 and the terminator.
pub const MAX_FRAME: usize = cobs::max_encoding_length(MAX_RAW) + 1;

/// Longest frame on the wire that a controller sends.
pub const MAX_REPLY_FRAME: usize = cobs::max_encoding_length(HEADER + MAX_REPLY_BODY + CRC_BYTES) + 1;

const _: () = assert!(MAX_FRAME > MAX_RAW + MAX_RAW.div_ceil(254));

record! {
    /// The header before each body.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Header {
        /// Protocol version of the sender, see [`PROTOCOL_VERSION`].
        pub version: u8,
        [kind "type"]
        /// Counts the sender's frames in a session; wraps.
        pub sequence: u32,
        /// A random number chosen by the host, not 0; its hello opens the session. 0 if there is none.
        pub session: u32,
        /// The sender's monotonic clock when the frame was made, in microseconds.
        pub time_us: u64,
    }
}

impl Header {
    /// A header of this build's version.
    pub fn new(sequence: u32, session: u32, time_us: u64) -> Self {
        Self { version: PROTOCOL_VERSION, sequence, session, time_us }
    }
}

/// A complete frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The message; it borrows the decoder's buffer.
    pub message: Message<'a>,
}

/// The message does not fit the buffer, or its counts contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeError;

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message does not fit the frame, or its counts contradict each other")
    }
}

impl core::error::Error for EncodeError {}

/// Writes a frame with its terminator to the front of `out`; returns the number of bytes.
///
/// # Errors
/// [`EncodeError`]; `out` then holds no frame. [`MAX_FRAME`] bytes are always enough.
pub fn encode(header: &Header, message: &Message<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    if let Message::Chunk(chunk) = message
        && !(chunk.is_whole() && usize::from(chunk.steps) <= MAX_CHUNK_STEPS)
    {
        return Err(EncodeError);
    }
    let length = write(header, message, out).map_err(|_| EncodeError)?;
    *out.get_mut(length).ok_or(EncodeError)? = 0;
    Ok(length.saturating_add(1))
}

fn write(header: &Header, message: &Message<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let mut w = Writer::new(message.kind(), out);
    header.write(&mut w)?;
    message.write(&mut w)?;
    w.finish()
}

/// The reason why bytes between two `0x00` are not a frame of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Not COBS.
    Cobs,
    /// Longer than [`MAX_RAW`].
    TooLong,
    /// Shorter than header and CRC.
    TooShort,
    /// The CRC does not match.
    Crc,
    /// A complete frame of another protocol version.
    Version {
        /// The sender's version.
        found: u8,
        /// The frame's header.
        header: Header,
    },
    /// A complete frame of an unknown type.
    UnknownType {
        /// The type byte.
        kind: u8,
        /// The frame's header.
        header: Header,
    },
    /// A complete frame whose body does not match its type.
    Malformed {
        /// The type byte.
        kind: u8,
        /// The frame's header.
        header: Header,
    },
}

impl FrameError {
    /// Whether the line damaged the frame; otherwise the sender's protocol differs.
    pub fn is_line_error(&self) -> bool {
        matches!(self, Self::Cobs | Self::TooLong | Self::TooShort | Self::Crc)
    }
}

/// Number of each [`FrameError`] and of good frames; all wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Good frames.
    pub frames: u32,
    /// [`FrameError::Cobs`].
    pub cobs: u32,
    /// [`FrameError::TooLong`].
    pub too_long: u32,
    /// [`FrameError::TooShort`].
    pub too_short: u32,
    /// [`FrameError::Crc`].
    pub crc: u32,
    /// [`FrameError::Version`].
    pub version: u32,
    /// [`FrameError::UnknownType`].
    pub unknown_type: u32,
    /// [`FrameError::Malformed`].
    pub malformed: u32,
}

impl Counters {
    /// All errors other than [`Counters::crc`].
    pub fn other_than_crc(&self) -> u32 {
        [self.cobs, self.too_long, self.too_short, self.version, self.unknown_type, self.malformed]
            .into_iter()
            .fold(0, u32::wrapping_add)
    }

    fn count(&mut self, error: &FrameError) {
        let counter = match error {
            FrameError::Cobs => &mut self.cobs,
            FrameError::TooLong => &mut self.too_long,
            FrameError::TooShort => &mut self.too_short,
            FrameError::Crc => &mut self.crc,
            FrameError::Version { .. } => &mut self.version,
            FrameError::UnknownType { .. } => &mut self.unknown_type,
            FrameError::Malformed { .. } => &mut self.malformed,
        };
        *counter = counter.wrapping_add(1);
    }
}

/// Extracts frames from a stream of bytes, byte by byte, in a fixed buffer.
///
/// Broken frames are data: they are reported, counted and skipped up to the next `0x00`.
pub struct Decoder {
    state: DecoderState,
    raw: [u8; MAX_RAW],
    length: usize,
    too_long: bool,
    counters: Counters,
}

impl Decoder {
    /// A decoder at the start of a frame.
    pub fn new() -> Self {
        Self { state: DecoderState::Idle, raw: [0; MAX_RAW], length: 0, too_long: false, counters: Counters::default() }
    }

    /// The counts since the decoder was made.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes one byte; `Some` at the end of a frame or of a broken one.
    pub fn feed(&mut self, byte: u8) -> Option<Result<Frame<'_>, FrameError>> {
        let error = match self.state.feed(byte) {
            Ok(DecodeResult::NoData) => return None,
            Ok(DecodeResult::DataStart) => {
                self.length = 0;
                self.too_long = false;
                return None;
            }
            Ok(DecodeResult::DataContinue(value)) => {
                match self.raw.get_mut(self.length) {
                    Some(place) => {
                        *place = value;
                        self.length = self.length.saturating_add(1);
                    }
                    None => self.too_long = true,
                }
                return None;
            }
            Ok(DecodeResult::DataComplete) if self.too_long => FrameError::TooLong,
            Ok(DecodeResult::DataComplete) => {
                let raw = self.raw.get(..self.length).unwrap_or(&[]);
                match parse(raw) {
                    Ok(frame) => {
                        self.counters.frames = self.counters.frames.wrapping_add(1);
                        return Some(Ok(frame));
                    }
                    Err(error) => error,
                }
            }
            Err(_) if self.too_long => FrameError::TooLong,
            Err(_) => FrameError::Cobs,
        };
        self.counters.count(&error);
        Some(Err(error))
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("length", &self.length)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

fn parse(raw: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (content, crc) = raw.split_last_chunk::<CRC_BYTES>().ok_or(FrameError::TooShort)?;
    let (head, body) = content.split_at_checked(HEADER).ok_or(FrameError::TooShort)?;
    if crc32(content) != u32::from_le_bytes(*crc) {
        return Err(FrameError::Crc);
    }
    let mut head = Reader::new(head);
    let header = Header::read(&mut head).ok_or(FrameError::TooShort)?;
    let kind = head.context.kind;
    if header.version != PROTOCOL_VERSION {
        return Err(FrameError::Version { found: header.version, header });
    }
    if !Message::is_known(kind) {
        return Err(FrameError::UnknownType { kind, header });
    }
    match Message::read(kind, body) {
        Some(Message::Chunk(chunk)) if !chunk.is_whole() => Err(FrameError::Malformed { kind, header }),
        Some(message) => Ok(Frame { header, message }),
        None => Err(FrameError::Malformed { kind, header }),
    }
}
