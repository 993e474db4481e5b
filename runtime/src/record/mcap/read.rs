//! Reads MCAP files, intact or damaged: every message whose chunk has the correct checksum, in the file's order.
//!
//! A damaged chunk is skipped. If the order of records is lost, reading continues at the next chunk with a correct
//! checksum. Memory use is the size of the largest record, which is never larger than the file.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use super::{ATTACHMENT, CHANNEL, CHUNK, DATA_END, FOOTER, HEADER, MAGIC, MESSAGE, MESSAGE_INDEX, METADATA, SCHEMA};
use crate::record::damage::{Cause, Causes};

/// A type byte and a length.
const RECORD_HEAD: u64 = 9;
/// Bytes of a chunk before its records, without compression: two times, size, checksum, no name, size.
const CHUNK_HEAD: u64 = 8 + 8 + 8 + 4 + 4 + 8;
/// Size limit of a record: a chunk is closed at a megabyte, and a message is at most an image.
const MAX_RECORD: u64 = 1 << 30;
/// Number of the first eight bytes that must be correct in a file with a damaged start.
const ALIKE: usize = 6;
/// Bytes that a search for a chunk reads at a time.
const WINDOW: usize = 1 << 16;

/// Topics by the numbers of their channels.
pub(in crate::record) type Channels = BTreeMap<u16, String>;

/// A message of a file.
#[derive(Clone, Copy, Debug)]
pub(in crate::record) struct Message<'a> {
    pub(in crate::record) topic: &'a str,
    /// Its time in the file, in nanoseconds.
    pub(in crate::record) log_ns: u64,
    pub(in crate::record) data: &'a [u8],
}

/// Passes the messages of a file to `take`, until it returns `false`, and adds the reasons for missing messages to
/// `causes`.
///
/// # Errors
/// [`Stopped::Io`] if the file cannot be read further, and [`Stopped::Taken`] with the errors of `take`.
pub(in crate::record) fn read<R: Read + Seek, E>(
    mut input: R,
    causes: &mut Causes,
    take: &mut dyn FnMut(Message<'_>, &Channels, &mut Causes) -> Result<bool, E>,
) -> Result<(), Stopped<E>> {
    let length = input.seek(SeekFrom::End(0))?;
    input.rewind()?;
    let mut start = Vec::new();
    input.by_ref().take(64).read_to_end(&mut start)?;
    if !start.starts_with(MAGIC) {
        if !start.is_empty() && MAGIC.starts_with(&start) {
            causes.add(Cause::Cut { at: 0, of: length });
            return Ok(());
        }
        let alike = start.iter().zip(MAGIC).filter(|(byte, magic)| byte == magic).count();
        if alike < ALIKE {
            causes.add(Cause::of_start(&start));
            return Ok(());
        }
        causes.add(Cause::Record { at: 0 });
    }
    let checksum = crc32fast::Hasher::new();
    let mut reader = Reader {
        input,
        length,
        at: 0,
        sure: MAGIC.len() as u64,
        checksum,
        channels: Channels::new(),
        content: Vec::new(),
        causes,
    };
    reader.seek(MAGIC.len() as u64)?;
    reader.checksum.update(MAGIC);
    reader.records(take)
}

/// The reason why reading ended early.
#[derive(Debug)]
pub(in crate::record) enum Stopped<E> {
    Io(io::Error),
    Taken(E),
}

impl<E> From<io::Error> for Stopped<E> {
    fn from(error: io::Error) -> Self {
        Stopped::Io(error)
    }
}

struct Reader<'c, R> {
    input: R,
    /// Size of the file when it was opened: a growing file is read up to here.
    length: u64,
    at: u64,
    /// End of the last chunk with a correct checksum; the data after it may be misread.
    sure: u64,
    /// Checksum of all bytes read; invalid after damage.
    checksum: crc32fast::Hasher,
    channels: Channels,
    /// Content of the current record.
    content: Vec<u8>,
    causes: &'c mut Causes,
}

/// The result of reading a record.
enum Fit {
    Fits,
    /// It is not a record of Fathom's.
    Foreign,
    /// A chunk with a wrong checksum.
    Checksum,
    Compressed,
    /// The last one before the index.
    End,
    /// `take` has ended the reading.
    Enough,
}

impl<R: Read + Seek> Reader<'_, R> {
    fn seek(&mut self, at: u64) -> io::Result<()> {
        self.input.seek(SeekFrom::Start(at))?;
        self.at = at;
        Ok(())
    }

    /// Reads `count` bytes into `content`; returns whether they exist.
    fn fill(&mut self, count: u64) -> io::Result<bool> {
        self.content.clear();
        let got = self.input.by_ref().take(count).read_to_end(&mut self.content)?;
        self.at += got as u64;
        self.checksum.update(&self.content);
        Ok(got as u64 == count)
    }

    fn records<E>(
        &mut self,
        take: &mut dyn FnMut(Message<'_>, &Channels, &mut Causes) -> Result<bool, E>,
    ) -> Result<(), Stopped<E>> {
        loop {
            let at = self.at;
            let left = self.length.saturating_sub(at);
            if left == 0 {
                self.causes.add(Cause::Unfinished);
                return Ok(());
            }
            let before = self.checksum.clone();
            let head = self.fill(RECORD_HEAD.min(left))?.then(|| Cursor(&self.content).head()).flatten();
            let fit = match head {
                Some((op, size)) if size <= left - RECORD_HEAD && size <= MAX_RECORD && belongs(op) => {
                    if self.fill(size)? { self.record(op, &before, take)? } else { Fit::Foreign }
                }
                _ => Fit::Foreign,
            };
            match fit {
                Fit::Fits => {}
                Fit::Enough => return Ok(()),
                Fit::End => return Ok(self.index()?),
                Fit::Checksum => {
                    self.causes.add(Cause::Checksum { at });
                    // A write that failed may have left half a chunk, with the next one within its length.
                    let after = self.at;
                    let next = self.search(self.sure)?;
                    self.seek(next.unwrap_or(after))?;
                }
                Fit::Compressed => {
                    self.causes.add(Cause::Compressed);
                    return Ok(());
                }
                Fit::Foreign => {
                    let next = self.search(self.sure)?;
                    self.causes.add(match next {
                        Some(_) => Cause::Record { at },
                        None => Cause::Cut { at, of: self.length },
                    });
                    let Some(next) = next else { return Ok(()) };
                    self.seek(next)?;
                }
            }
        }
    }

    /// Handles the record in `content`; `before` is the checksum of everything before it.
    fn record<E>(
        &mut self,
        op: u8,
        before: &crc32fast::Hasher,
        take: &mut dyn FnMut(Message<'_>, &Channels, &mut Causes) -> Result<bool, E>,
    ) -> Result<Fit, Stopped<E>> {
        let mut c = Cursor(&self.content);
        Ok(match op {
            CHANNEL if channel(c, &mut self.channels) == Some(true) => Fit::Fits,
            MESSAGE_INDEX if message_index(c).is_some() => Fit::Fits,
            HEADER | SCHEMA | ATTACHMENT | METADATA if is_whole(op, c).is_some() => Fit::Fits,
            DATA_END if self.content.len() == 4 => {
                let stored = c.u32().unwrap_or(0);
                if stored != 0 && self.causes.is_empty() && before.clone().finalize() != stored {
                    self.causes.add(Cause::Outside);
                }
                Fit::End
            }
            CHUNK => match chunk(c) {
                Some((_, false, _)) => Fit::Compressed,
                Some((stored, true, inner)) if stored == 0 || crc32fast::hash(inner) == stored => {
                    let at = self.at - self.content.len() as u64 - RECORD_HEAD;
                    self.sure = self.at;
                    let on = chunk_records(inner, at, &mut self.channels, self.causes, take).map_err(Stopped::Taken)?;
                    if on { Fit::Fits } else { Fit::Enough }
                }
                Some(_) => Fit::Checksum,
                None => Fit::Foreign,
            },
            _ => Fit::Foreign,
        })
    }

    /// Checks whether the rest of the file is a complete index.
    fn index(&mut self) -> io::Result<()> {
        let left = self.length.saturating_sub(self.at);
        let whole = left <= MAX_RECORD && self.fill(left)? && whole_index(&self.content);
        if !whole {
            self.causes.add(Cause::Index);
        }
        Ok(())
    }

    /// Start of the next whole chunk, at or after `from`.
    fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        let head = (RECORD_HEAD + CHUNK_HEAD) as usize;
        let mut from = from;
        let mut window = Vec::new();
        while from + (head as u64) <= self.length {
            self.input.seek(SeekFrom::Start(from))?;
            window.clear();
            self.input.by_ref().take(WINDOW as u64).read_to_end(&mut window)?;
            let heads = window.windows(head).enumerate();
            for (n, bytes) in heads.filter(|(_, bytes)| bytes.first() == Some(&CHUNK)) {
                let at = from + n as u64;
                if let Some(stored) = whole_chunk(bytes, self.length - at)
                    && self.sums(at + head as u64, stored.0)? == stored.1
                {
                    return Ok(Some(at));
                }
            }
            if window.len() < head {
                return Ok(None);
            }
            from += (window.len() - head + 1) as u64;
        }
        Ok(None)
    }

    /// The checksum of `count` bytes from there.
    fn sums(&mut self, from: u64, count: u64) -> io::Result<u32> {
        self.input.seek(SeekFrom::Start(from))?;
        self.content.clear();
        self.input.by_ref().take(count).read_to_end(&mut self.content)?;
        Ok(crc32fast::hash(&self.content))
    }
}

/// Whether a record of this type belongs to the data.
fn belongs(op: u8) -> bool {
    matches!(op, HEADER | SCHEMA | CHANNEL | CHUNK | MESSAGE_INDEX | ATTACHMENT | METADATA | DATA_END)
}

/// Size and checksum of the records of a chunk that starts with these bytes, if it can be one.
fn whole_chunk(head: &[u8], left: u64) -> Option<(u64, u32)> {
    let mut c = Cursor(head);
    let (op, length) = c.head()?;
    c.take(8 + 8)?;
    let (size, crc, name, records) = (c.u64()?, c.u32()?, c.u32()?, c.u64()?);
    let fits = op == CHUNK && name == 0 && size == records && crc != 0;
    let long = length == records.checked_add(CHUNK_HEAD)? && length <= left.checked_sub(RECORD_HEAD)?;
    (fits && long && length <= MAX_RECORD).then_some((records, crc))
}

/// Whether these bytes are a summary with its footer, and its checksum, if any, is correct.
fn whole_index(bytes: &[u8]) -> bool {
    const FOOTER_BYTES: usize = RECORD_HEAD as usize + 8 + 8 + 4;
    let Some(records) = bytes.strip_suffix(MAGIC) else { return false };
    let Some(start) = records.len().checked_sub(FOOTER_BYTES) else { return false };
    let Some((summed, stored)) = records.split_last_chunk::<4>() else { return false };
    let stored = u32::from_le_bytes(*stored);
    let head = summed.get(start..).and_then(|footer| Cursor(footer).head());
    head == Some((FOOTER, 20)) && (stored == 0 || crc32fast::hash(summed) == stored)
}

/// The chunk's stored checksum, whether it is uncompressed, and its records.
fn chunk(mut c: Cursor<'_>) -> Option<(u32, bool, &[u8])> {
    c.take(8 + 8)?;
    let (size, crc, compression, length) = (c.u64()?, c.u32()?, c.string()?, c.u64()?);
    if !compression.is_empty() {
        return matches!(compression, "lz4" | "zstd").then_some((crc, false, c.0));
    }
    (size == length && length == c.0.len() as u64).then_some((crc, true, c.0))
}

/// Whether the lengths within a record of this type add up to the record's own.
fn is_whole(op: u8, mut c: Cursor<'_>) -> Option<()> {
    let rest = match op {
        HEADER => c.string().and(c.string()).map(|_| 0),
        SCHEMA => c.u16().and(c.string()).and(c.string()).and(c.u32()).map(u64::from),
        METADATA => c.string().and(c.u32()).map(u64::from),
        // Two times, name and type, and a checksum after the data.
        _ => c.take(8 + 8).and(c.string()).and(c.string()).and(c.u64()).and_then(|length| length.checked_add(4)),
    };
    (rest? == c.0.len() as u64).then_some(())
}

/// Adds or replaces a channel; `false` if an existing one changed.
fn channel(mut c: Cursor<'_>, channels: &mut Channels) -> Option<bool> {
    let (id, _, topic, _, map) = (c.u16()?, c.u16()?, c.string()?, c.string()?, c.u32()?);
    if map as usize != c.0.len() {
        return None;
    }
    let known = channels.insert(id, topic.to_owned());
    Some(known.is_none_or(|known| known == topic))
}

fn message_index(mut c: Cursor<'_>) -> Option<()> {
    let (_, length) = (c.u16()?, c.u32()?);
    (length as usize == c.0.len() && length % 16 == 0).then_some(())
}

/// Passes a chunk's messages to `take`; returns whether to continue.
fn chunk_records<E>(
    inner: &[u8],
    at: u64,
    channels: &mut Channels,
    causes: &mut Causes,
    take: &mut dyn FnMut(Message<'_>, &Channels, &mut Causes) -> Result<bool, E>,
) -> Result<bool, E> {
    let mut cursor = Cursor(inner);
    while !cursor.0.is_empty() {
        let Some((op, content)) = cursor.record() else {
            causes.add(Cause::Record { at });
            return Ok(true);
        };
        let mut c = Cursor(content);
        match op {
            SCHEMA => {}
            CHANNEL if channel(c, channels) == Some(true) => {}
            MESSAGE => {
                let (Some(id), Some(_), Some(log_ns), Some(_)) = (c.u16(), c.u32(), c.u64(), c.u64()) else {
                    causes.add(Cause::Record { at });
                    continue;
                };
                let Some(topic) = channels.get(&id) else {
                    causes.add(Cause::Channel { id });
                    continue;
                };
                if !take(Message { topic, log_ns, data: c.0 }, channels, causes)? {
                    return Ok(false);
                }
            }
            _ => causes.add(Cause::Record { at }),
        }
    }
    Ok(true)
}

/// Reads little-endian numbers and strings from the front of bytes.
#[derive(Clone, Copy)]
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

    /// Type and length of a record.
    fn head(&mut self) -> Option<(u8, u64)> {
        Some((*self.take(1)?.first()?, self.u64()?))
    }

    fn record(&mut self) -> Option<(u8, &'a [u8])> {
        let (op, length) = self.head()?;
        Some((op, self.take(usize::try_from(length).ok()?)?))
    }
}

#[cfg(test)]
mod tests;
