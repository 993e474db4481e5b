//! MCAP files (mcap.dev, version 0): written in chunks with an index, without compression, and read in order.

mod read;
mod write;

pub(super) use read::{Channels, Message, Stopped, read};
pub(super) use write::Writer;

const MAGIC: &[u8] = b"\x89MCAP0\r\n";
const HEADER: u8 = 0x01;
const FOOTER: u8 = 0x02;
const SCHEMA: u8 = 0x03;
const CHANNEL: u8 = 0x04;
const MESSAGE: u8 = 0x05;
const CHUNK: u8 = 0x06;
const MESSAGE_INDEX: u8 = 0x07;
const CHUNK_INDEX: u8 = 0x08;
const ATTACHMENT: u8 = 0x09;
const STATISTICS: u8 = 0x0b;
const METADATA: u8 = 0x0c;
const SUMMARY_OFFSET: u8 = 0x0e;
const DATA_END: u8 = 0x0f;
/// Least bytes of messages in a chunk, unless it is closed before.
const CHUNK_BYTES: usize = 1 << 20;

/// The format of a channel's messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelSpec<'a> {
    pub(super) topic: &'a str,
    /// Name of the schema.
    pub(super) schema: &'a str,
    /// `jsonschema` or `protobuf`.
    pub(super) schema_encoding: &'a str,
    /// The schema itself.
    pub(super) data: &'a [u8],
    /// `json` or `protobuf`.
    pub(super) encoding: &'a str,
}
