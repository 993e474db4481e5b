//! MCAP files (mcap.dev, version 0): written in chunks with an index, without compression, and read in order.

use std::collections::BTreeMap;
use std::io::{self, Write};

const MAGIC: &[u8] = b"\x89MCAP0\r\n";
const HEADER: u8 = 0x01;
const FOOTER: u8 = 0x02;
const SCHEMA: u8 = 0x03;
const CHANNEL: u8 = 0x04;
const MESSAGE: u8 = 0x05;
const CHUNK: u8 = 0x06;
const MESSAGE_INDEX: u8 = 0x07;
const CHUNK_INDEX: u8 = 0x08;
const STATISTICS: u8 = 0x0b;
const SUMMARY_OFFSET: u8 = 0x0e;
const DATA_END: u8 = 0x0f;
/// Bytes of messages that a chunk has at least, unless it is closed before.
const CHUNK_BYTES: usize = 1 << 20;

/// What a channel's messages are.
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

fn string(into: &mut Vec<u8>, value: &str) {
    into.extend((value.len() as u32).to_le_bytes());
    into.extend(value.as_bytes());
}

fn record(into: &mut Vec<u8>, op: u8, content: &[u8]) {
    into.push(op);
    into.extend((content.len() as u64).to_le_bytes());
    into.extend(content);
}

struct ChunkIndex {
    times: (u64, u64),
    offset: u64,
    length: u64,
    /// Where the index of each channel is.
    indexes: BTreeMap<u16, u64>,
    index_length: u64,
    bytes: u64,
}

/// Writes one file. Without [`Writer::finish`] it has no index, and readers fall back to its order.
pub(super) struct Writer<W> {
    out: W,
    written: u64,
    channels: Vec<Vec<u8>>,
    schemas: Vec<Vec<u8>>,
    counts: BTreeMap<u16, u64>,
    chunk: Vec<u8>,
    /// Time and offset of the chunk's messages, by channel.
    index: BTreeMap<u16, Vec<(u64, u64)>>,
    chunks: Vec<ChunkIndex>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(super) fn new(out: W, library: &str) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            out,
            written: 0,
            channels: Vec::new(),
            schemas: Vec::new(),
            counts: BTreeMap::new(),
            chunk: Vec::with_capacity(2 * CHUNK_BYTES),
            index: BTreeMap::new(),
            chunks: Vec::new(),
        };
        let mut bytes = MAGIC.to_vec();
        let mut header = Vec::new();
        string(&mut header, "");
        string(&mut header, library);
        record(&mut bytes, HEADER, &header);
        writer.put(&bytes)?;
        Ok(writer)
    }

    /// Bytes so far, those of the open chunk included.
    pub(super) fn bytes(&self) -> u64 {
        self.written + self.chunk.len() as u64
    }

    /// Adds a channel; its number.
    pub(super) fn channel(&mut self, spec: &ChannelSpec<'_>) -> io::Result<u16> {
        let number = self.channels.len() as u16;
        let mut schema = (number + 1).to_le_bytes().to_vec(); // 0 is no schema
        string(&mut schema, spec.schema);
        string(&mut schema, spec.schema_encoding);
        schema.extend((spec.data.len() as u32).to_le_bytes());
        schema.extend(spec.data);
        let mut channel = number.to_le_bytes().to_vec();
        channel.extend((number + 1).to_le_bytes());
        string(&mut channel, spec.topic);
        string(&mut channel, spec.encoding);
        channel.extend(0_u32.to_le_bytes());
        let mut bytes = Vec::new();
        record(&mut bytes, SCHEMA, &schema);
        record(&mut bytes, CHANNEL, &channel);
        self.put(&bytes)?;
        self.schemas.push(schema);
        self.channels.push(channel);
        Ok(number)
    }

    /// Adds a message; times in nanoseconds.
    pub(super) fn message(&mut self, channel: u16, log_ns: u64, publish_ns: u64, data: &[u8]) -> io::Result<()> {
        let count = self.counts.entry(channel).or_default();
        *count += 1;
        let mut content = Vec::with_capacity(22);
        content.extend(channel.to_le_bytes());
        content.extend((*count as u32).to_le_bytes());
        content.extend(log_ns.to_le_bytes());
        content.extend(publish_ns.to_le_bytes());
        self.index.entry(channel).or_default().push((log_ns, self.chunk.len() as u64));
        self.chunk.push(MESSAGE);
        self.chunk.extend(((content.len() + data.len()) as u64).to_le_bytes());
        self.chunk.extend(content);
        self.chunk.extend(data);
        if self.chunk.len() >= CHUNK_BYTES { self.close_chunk() } else { Ok(()) }
    }

    /// Writes what is held back.
    pub(super) fn close_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let times = self.index.values().flatten().map(|(time, _)| *time);
        let times = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
        let mut content = Vec::with_capacity(self.chunk.len() + 64);
        content.extend(times.0.to_le_bytes());
        content.extend(times.1.to_le_bytes());
        content.extend((self.chunk.len() as u64).to_le_bytes());
        content.extend(crc32fast::hash(&self.chunk).to_le_bytes());
        string(&mut content, "");
        content.extend((self.chunk.len() as u64).to_le_bytes());
        content.extend(&self.chunk);
        let (offset, mut bytes) = (self.written, Vec::new());
        record(&mut bytes, CHUNK, &content);
        let length = bytes.len() as u64;
        let mut indexes = BTreeMap::new();
        for (channel, entries) in &self.index {
            indexes.insert(*channel, offset + bytes.len() as u64);
            let mut content = channel.to_le_bytes().to_vec();
            content.extend((entries.len() as u32 * 16).to_le_bytes());
            for (time, at) in entries {
                content.extend(time.to_le_bytes());
                content.extend(at.to_le_bytes());
            }
            record(&mut bytes, MESSAGE_INDEX, &content);
        }
        let index_length = bytes.len() as u64 - length;
        let size = self.chunk.len() as u64;
        self.put(&bytes)?;
        self.chunks.push(ChunkIndex { times, offset, length, indexes, index_length, bytes: size });
        self.chunk.clear();
        self.index.clear();
        self.out.flush()
    }

    /// Writes the index and ends the file.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.close_chunk()?;
        let mut bytes = Vec::new();
        record(&mut bytes, DATA_END, &0_u32.to_le_bytes());
        let summary = self.written + bytes.len() as u64;
        let mut groups = Vec::new();
        let mut group = |bytes: &mut Vec<u8>, op: u8, contents: &[Vec<u8>]| {
            let start = bytes.len();
            contents.iter().for_each(|content| record(bytes, op, content));
            groups.push((op, self.written + start as u64, (bytes.len() - start) as u64));
        };
        group(&mut bytes, SCHEMA, &self.schemas);
        group(&mut bytes, CHANNEL, &self.channels);
        group(&mut bytes, STATISTICS, &[self.statistics()]);
        let indexes: Vec<Vec<u8>> = self.chunks.iter().map(chunk_index).collect();
        group(&mut bytes, CHUNK_INDEX, &indexes);
        let offsets = self.written + bytes.len() as u64;
        for (op, start, length) in groups.iter().filter(|(_, _, length)| *length > 0) {
            let mut content = vec![*op];
            content.extend(start.to_le_bytes());
            content.extend(length.to_le_bytes());
            record(&mut bytes, SUMMARY_OFFSET, &content);
        }
        let mut footer = summary.to_le_bytes().to_vec();
        footer.extend(offsets.to_le_bytes());
        footer.extend(0_u32.to_le_bytes()); // no CRC of the summary
        record(&mut bytes, FOOTER, &footer);
        bytes.extend(MAGIC);
        self.put(&bytes)?;
        self.out.flush()
    }

    fn statistics(&self) -> Vec<u8> {
        let mut content = self.counts.values().sum::<u64>().to_le_bytes().to_vec();
        content.extend((self.schemas.len() as u16).to_le_bytes());
        content.extend((self.channels.len() as u32).to_le_bytes());
        content.extend([0; 8]); // no attachments, no metadata
        content.extend((self.chunks.len() as u32).to_le_bytes());
        content.extend(self.chunks.iter().map(|c| c.times.0).min().unwrap_or(0).to_le_bytes());
        content.extend(self.chunks.iter().map(|c| c.times.1).max().unwrap_or(0).to_le_bytes());
        content.extend((self.counts.len() as u32 * 10).to_le_bytes());
        for (channel, count) in &self.counts {
            content.extend(channel.to_le_bytes());
            content.extend(count.to_le_bytes());
        }
        content
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn chunk_index(chunk: &ChunkIndex) -> Vec<u8> {
    let mut content = chunk.times.0.to_le_bytes().to_vec();
    content.extend(chunk.times.1.to_le_bytes());
    content.extend(chunk.offset.to_le_bytes());
    content.extend(chunk.length.to_le_bytes());
    content.extend((chunk.indexes.len() as u32 * 10).to_le_bytes());
    for (channel, offset) in &chunk.indexes {
        content.extend(channel.to_le_bytes());
        content.extend(offset.to_le_bytes());
    }
    content.extend(chunk.index_length.to_le_bytes());
    string(&mut content, "");
    content.extend(chunk.bytes.to_le_bytes());
    content.extend(chunk.bytes.to_le_bytes());
    content
}

/// Reads little-endian numbers and strings off the front of bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

/// A message of a file.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    pub(super) data: &'a [u8],
}

/// Why bytes are no recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// They do not begin as an MCAP file does.
    Magic,
    /// They are compressed, which is not written here.
    Compressed,
    /// A chunk's checksum is wrong.
    Checksum,
}

/// The messages in the file's order. A file that was cut off, as by a crash, gives what is whole.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Message<'_>>, Broken> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Broken::Magic)?;
    let mut channels = BTreeMap::new();
    let mut messages = Vec::new();
    records(rest, &mut channels, &mut messages)?;
    Ok(messages)
}

fn records<'a>(
    bytes: &'a [u8],
    channels: &mut BTreeMap<u16, &'a str>,
    messages: &mut Vec<Message<'a>>,
) -> Result<(), Broken> {
    let mut cursor = Cursor(bytes);
    while let Some((op, content)) = next(&mut cursor) {
        let mut c = Cursor(content);
        match op {
            CHANNEL => {
                if let (Some(id), Some(_), Some(topic)) = (c.u16(), c.u16(), c.string()) {
                    channels.insert(id, topic);
                }
            }
            MESSAGE => {
                if let (Some(id), Some(_)) = (c.u16(), c.take(4 + 8 + 8))
                    && let Some(topic) = channels.get(&id)
                {
                    messages.push(Message { topic, data: c.0 });
                }
            }
            CHUNK => {
                let Some((crc, compression, inner)) = chunk(&mut c) else { continue };
                if !compression.is_empty() {
                    return Err(Broken::Compressed);
                }
                if crc != 0 && crc32fast::hash(inner) != crc {
                    return Err(Broken::Checksum);
                }
                records(inner, channels, messages)?;
            }
            // The rest is the index.
            DATA_END => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

fn next<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8])> {
    let op = *cursor.take(1)?.first()?;
    let length = usize::try_from(cursor.u64()?).ok()?;
    Some((op, cursor.take(length)?))
}

fn chunk<'a>(c: &mut Cursor<'a>) -> Option<(u32, &'a str, &'a [u8])> {
    c.take(8 + 8 + 8)?;
    let (crc, compression) = (c.u32()?, c.string()?);
    let length = usize::try_from(c.u64()?).ok()?;
    Some((crc, compression, c.take(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(finish: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, "fathom").unwrap();
        let spec =
            ChannelSpec { topic: "/a", schema: "A", schema_encoding: "jsonschema", data: b"{}", encoding: "json" };
        let channel = writer.channel(&spec).unwrap();
        for n in 0..1000_u64 {
            writer
                .message(channel, n, n, format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(3000)).as_bytes())
                .unwrap();
        }
        if finish {
            writer.finish().unwrap()
        } else {
            writer.close_chunk().unwrap()
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read_even_when_cut_off() {
        let (whole, cut) = (file(true), file(false));
        assert_eq!(read(&whole).unwrap().len(), 1000);
        let messages = read(&cut).unwrap();
        assert_eq!((messages.len(), messages[999].topic), (1000, "/a"));
        let some = read(&cut[..cut.len() / 2]).unwrap().len();
        assert!((300..600).contains(&some), "{some} messages of half a file");
        for length in 0..200 {
            let _ = read(&cut[..length]);
        }
    }

    #[test]
    fn a_damaged_chunk_is_told() {
        let mut bytes = file(true);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert_eq!(read(&bytes).unwrap_err(), Broken::Checksum);
        assert_eq!(read(b"not MCAP").unwrap_err(), Broken::Magic);
    }
}
