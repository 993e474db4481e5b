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
mod tests {
    use super::*;
    use crate::record::mcap::{ChannelSpec, Writer};

    /// Chunks of messages that contain their numbers; without `finish` as after a crash.
    fn file(count: u64, bytes: usize, finish: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "fathom").unwrap();
        let spec =
            ChannelSpec { topic: "/a", schema: "A", schema_encoding: "jsonschema", data: b"{}", encoding: "json" };
        let channel = writer.channel(&spec).unwrap();
        writer.repeat_channels();
        for n in 0..count {
            let mut data = n.to_le_bytes().to_vec();
            data.resize(bytes, n as u8);
            writer.message(channel, n, n, &data).unwrap();
            if n % 3 == 2 {
                writer.close_chunk().unwrap();
            }
        }
        if finish {
            writer.finish().unwrap();
        } else {
            writer.close_chunk().unwrap();
        }
        out
    }

    /// The numbers of the messages read, and the causes.
    fn numbers(bytes: &[u8]) -> (Vec<u64>, Causes) {
        let (mut numbers, mut causes) = (Vec::new(), Causes::default());
        let done = read(io::Cursor::new(bytes), &mut causes, &mut |message, _, _| {
            assert_eq!(message.topic, "/a");
            let number = u64::from_le_bytes(message.data[..8].try_into().unwrap());
            assert!(message.log_ns == number && message.data[8..].iter().all(|b| *b == number as u8));
            numbers.push(number);
            Ok::<_, ()>(true)
        });
        assert!(done.is_ok());
        (numbers, causes)
    }

    #[test]
    fn a_whole_file_is_read_without_a_remark() {
        let (numbers, causes) = numbers(&file(20, 50, true));
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        assert!(causes.is_empty(), "{causes}");
    }

    /// A file cut anywhere gives the beginning of its messages: all complete chunks.
    #[test]
    fn a_file_cut_anywhere_gives_its_beginning() {
        for finish in [true, false] {
            let bytes = file(20, 50, finish);
            let mut most = 0;
            for length in 0..bytes.len() {
                let (numbers, causes) = numbers(&bytes[..length]);
                assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "cut at {length}");
                assert!(
                    numbers.len() >= most && (numbers.len() % 3 == 0 || numbers.len() == 20),
                    "cut at {length}: {numbers:?}"
                );
                assert!(!causes.is_empty(), "cut at {length}: nothing is said");
                most = numbers.len();
            }
            assert_eq!(most, 20, "the last byte is the index's");
        }
    }

    /// Any turned bit of a finished file is reported, no message is invented, and at most one chunk of three messages
    /// is lost.
    #[test]
    fn every_turned_bit_is_noticed() {
        let bytes = file(12, 40, true);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let (numbers, causes) = numbers_of(&changed);
                assert!(!causes.is_empty(), "bit {bit} of byte {at} is not noticed");
                let lost = (0..12).filter(|n| !numbers.contains(n)).count();
                assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(|n| *n < 12), "{numbers:?}");
                assert!(lost <= 3, "bit {bit} of byte {at}: {lost} lost, {causes}");
            }
        }
    }

    /// As `numbers`, for files in which the topic may differ.
    fn numbers_of(bytes: &[u8]) -> (Vec<u64>, Causes) {
        let (mut numbers, mut causes) = (Vec::new(), Causes::default());
        let done = read(io::Cursor::new(bytes), &mut causes, &mut |message, _, _| {
            numbers.push(u64::from_le_bytes(message.data[..8].try_into().unwrap()));
            Ok::<_, ()>(true)
        });
        assert!(done.is_ok());
        (numbers, causes)
    }

    /// A length of 2^60 and more allocates no memory, in any place.
    #[test]
    fn a_length_beyond_the_file_is_damage() {
        for length in [1 << 60, u64::MAX, u64::MAX - 8, 1 << 32] {
            for op in 0..=u8::MAX {
                let mut bytes = MAGIC.to_vec();
                bytes.push(op);
                bytes.extend(length.to_le_bytes());
                bytes.extend([0; 100]);
                let (numbers, causes) = numbers(&bytes);
                assert!(numbers.is_empty() && causes.to_string().contains("truncated"), "{causes}");
            }
        }
        let whole = file(12, 40, true);
        let chunk = whole.windows(9).position(|w| w[0] == CHUNK && w[4..9] == [0; 5]).unwrap();
        let mut changed = whole.clone();
        changed[chunk + 1..chunk + 9].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        let (numbers, causes) = numbers(&changed);
        assert_eq!(numbers, (3..12).collect::<Vec<_>>(), "{causes}");
    }

    /// A write that failed half-way, followed by others: the next chunk lies within the length of the partial one.
    #[test]
    fn half_a_chunk_hides_none_of_the_others() {
        let whole = file(9, 40, true);
        let begins = |at: &usize| whole_chunk(&whole[*at..], (whole.len() - at) as u64).is_some();
        let chunks: Vec<usize> = (0..whole.len()).filter(begins).collect();
        assert_eq!(chunks.len(), 3);
        let length = usize::from(whole[chunks[1] + 1]) + RECORD_HEAD as usize;
        for half in 0..chunks[2] - chunks[1] {
            let mut file = whole[..chunks[1] + half].to_vec();
            file.extend(&whole[chunks[2]..]);
            let (numbers, causes) = numbers(&file);
            let left: Vec<u64> = (0..9).filter(|n| half >= length || !(3..6).contains(n)).collect();
            assert_eq!(numbers, left, "{half} bytes: {causes}");
            assert!(!causes.is_empty(), "{half} bytes");
        }
    }

    /// A file after a power cut: its size without its last blocks.
    #[test]
    fn a_tail_of_zeros_is_damage() {
        let mut bytes = file(18, 50, false);
        bytes.resize(bytes.len() + 4096, 0);
        let (numbers, causes) = numbers(&bytes);
        assert_eq!(numbers.len(), 18);
        assert!(causes.to_string().contains("truncated"), "{causes}");
    }

    #[test]
    fn what_is_no_recording_is_named() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
        for (bytes, expected) in [
            (&b""[..], "an empty file"),
            (pointer, "Git LFS"),
            (b"<!DOCTYPE html><html>", "web page"),
            (&[0; 4096], "only zeros"),
            (b"not MCAP", "not an MCAP file"),
            (&MAGIC[..1], "truncated"),
            (&MAGIC[..7], "truncated"),
        ] {
            let (numbers, causes) = numbers(bytes);
            assert!(numbers.is_empty() && causes.to_string().contains(expected), "{causes}, not {expected}");
        }
    }
}
