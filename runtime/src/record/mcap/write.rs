//! Writes MCAP files: in chunks with an index, without compression, with checksums of all parts.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{
    CHANNEL, CHUNK, CHUNK_BYTES, CHUNK_INDEX, ChannelSpec, DATA_END, FOOTER, HEADER, MAGIC, MESSAGE, MESSAGE_INDEX,
    SCHEMA, STATISTICS, SUMMARY_OFFSET,
};

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
    /// The place of each channel's index.
    indexes: BTreeMap<u16, u64>,
    index_length: u64,
    bytes: u64,
}

/// Writes one file. Without [`Writer::finish`] it has no index, and readers fall back to its order.
pub(in crate::record) struct Writer<W> {
    out: W,
    written: u64,
    /// Checksum of all bytes.
    checksum: crc32fast::Hasher,
    channels: Vec<Vec<u8>>,
    schemas: Vec<Vec<u8>>,
    counts: BTreeMap<u16, u64>,
    chunk: Vec<u8>,
    /// Time and offset of the chunk's messages, by channel.
    index: BTreeMap<u16, Vec<(u64, u64)>>,
    chunks: Vec<ChunkIndex>,
}

impl<W: Write> Writer<W> {
    /// Starts a file.
    pub(in crate::record) fn new(out: W, library: &str) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            out,
            written: 0,
            checksum: crc32fast::Hasher::new(),
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

    /// The destination of the bytes.
    pub(in crate::record) fn out(&self) -> &W {
        &self.out
    }

    /// Number of bytes, including the open chunk's.
    pub(in crate::record) fn bytes(&self) -> u64 {
        self.written + self.chunk.len() as u64
    }

    /// Adds a channel; returns its number.
    pub(in crate::record) fn channel(&mut self, spec: &ChannelSpec<'_>) -> io::Result<u16> {
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

    /// Repeats the channels in the chunk, so that its checksum covers them: earlier declarations have none.
    pub(in crate::record) fn repeat_channels(&mut self) {
        self.channels.iter().for_each(|content| record(&mut self.chunk, CHANNEL, content));
    }

    /// Adds a message; times in nanoseconds.
    pub(in crate::record) fn message(
        &mut self,
        channel: u16,
        log_ns: u64,
        publish_ns: u64,
        data: &[u8],
    ) -> io::Result<()> {
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

    /// Writes the buffered chunk.
    pub(in crate::record) fn close_chunk(&mut self) -> io::Result<()> {
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
        // A partly written chunk is not written again: its written part would be duplicated.
        self.chunk.clear();
        self.index.clear();
        self.put(&bytes)?;
        self.chunks.push(ChunkIndex { times, offset, length, indexes, index_length, bytes: size });
        self.out.flush()
    }

    /// Writes the index and ends the file; returns its size.
    pub(in crate::record) fn finish(mut self) -> io::Result<u64> {
        self.close_chunk()?;
        let mut bytes = Vec::new();
        record(&mut bytes, DATA_END, &self.checksum.clone().finalize().to_le_bytes());
        let data_end = bytes.len();
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
        // The checksum covers the summary from its first byte to the byte before the checksum.
        bytes.push(FOOTER);
        bytes.extend((footer.len() as u64 + 4).to_le_bytes());
        bytes.extend(footer);
        let checksum = crc32fast::hash(bytes.get(data_end..).unwrap_or_default());
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(MAGIC);
        self.put(&bytes)?;
        self.out.flush()?;
        Ok(self.written)
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
        self.checksum.update(bytes);
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
