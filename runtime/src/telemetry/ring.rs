//! A ring of events in shared memory. The daemon always writes it; other programs may read it.
//!
//! The writer never waits for a reader. Each slot has a sequence, which is odd during a write. A reader that is too
//! slow finds an unexpected sequence and counts the lost events. The file is in `/dev/shm`, is named after the process,
//! is locked while the process lives, and is removed at its end.
//!
//! Layout in words of 8 bytes, in native byte order:
//!
//! | words | content |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 1 | [`VERSION`] |
//! | 2 | slots, a power of two |
//! | 3 | the writer's process |
//! | 4 | events written so far |
//! | 5 | names written so far |
//! | 6 | bytes of the description |
//! | 8 … 2055 | 256 names of 8 words: a length in the first byte, then UTF-8 |
//! | 2056 … 3079 | the description, JSON |
//! | 3080 … | slots of 4 words: sequence, then the event |

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::event::Event;

/// The first word of a ring: `fathomRB`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"fathomRB");
/// The layout's version.
pub const VERSION: u64 = 1;

/// Number of names in a ring.
pub(super) const NAMES: usize = 256;
const NAME_WORDS: usize = 8;
const META_WORDS: usize = 1024;
const NAMES_AT: usize = 8;
const META_AT: usize = NAMES_AT + NAMES * NAME_WORDS;
const SLOTS_AT: usize = META_AT + META_WORDS;
const SLOT_WORDS: usize = 4;
/// Slots of a daemon's ring: a minute at a thousand events a second, in 2 MiB.
const SLOTS: u64 = 1 << 16;
/// Folder of all rings.
const FOLDER: &str = "/dev/shm";
/// Number of rings made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Errors of a ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The file cannot be created, opened or mapped.
    #[error("ring {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The file is not a ring, or incomplete.
    #[error("ring {}: expected {expected}, found {found}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// A valid ring's content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// Written by another version of Fathom.
    #[error("ring {}: expected version {VERSION}, found version {found}: use the tool of the daemon's own version", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The daemon's version.
        found: u64,
    },
    /// No daemon has a ring.
    #[error("no running fathom daemon ({stale} stale ring{} in {})", if *stale == 1 { "" } else { "s" }, folder.display())]
    NoDaemon {
        /// Folder of the rings.
        folder: PathBuf,
        /// Rings whose processes ended without removing them.
        stale: usize,
    },
    /// Several daemons have rings here.
    #[error("several daemons are running: expected one, or --pid with one of {found:?}")]
    Several {
        /// Their processes.
        found: Vec<u32>,
    },
}

/// A file's words, for writer and reader.
fn words(bytes: &[u8]) -> &[AtomicU64] {
    let count = bytes.len() / 8;
    // SAFETY: a map starts at a page, so it is aligned for u64; `count` words are inside it. AtomicU64 has the layout
    // of u64, every pattern of bits is valid, and every other process also writes whole words through atomics.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<AtomicU64>(), count) }
}

fn word(words: &[AtomicU64], at: usize) -> u64 {
    words.get(at).map_or(0, |w| w.load(Ordering::Acquire))
}

/// The daemon's end of a ring.
#[derive(Debug)]
pub struct RingWriter {
    path: PathBuf,
    /// Locked while it is open.
    _file: File,
    map: MmapMut,
    head: u64,
    slots: u64,
}

impl RingWriter {
    /// Makes this process's ring, with the description `meta`, a JSON text. Removes stale rings.
    ///
    /// # Errors
    /// [`RingError::Io`]; also if the folder has no space for the ring, which is allocated at once.
    pub fn create(meta: &str) -> Result<RingWriter, RingError> {
        let folder = Path::new(FOLDER);
        for (path, _) in rings(folder) {
            if matches!(locked(&path), Ok(false)) {
                let _ = std::fs::remove_file(&path);
            }
        }
        let pid = std::process::id();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = if number == 0 { format!("fathom-{pid}.ring") } else { format!("fathom-{pid}-{number}.ring") };
        RingWriter::create_at(&folder.join(name), meta, SLOTS)
    }

    /// Makes a ring with `slots` slots, rounded up to a power of two, at `path`.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn create_at(path: &Path, meta: &str, slots: u64) -> Result<RingWriter, RingError> {
        let failed = |source: io::Error| RingError::Io { path: path.to_owned(), source };
        let slots = slots.clamp(2, 1 << 24).next_power_of_two();
        let bytes = SLOTS_AT as u64 * 8 + slots * SLOT_WORDS as u64 * 8;
        // Made under another name, so that a reader only sees a locked and complete ring.
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        let draft = path.with_file_name(name);
        // A leftover of a former process with this number is removed; a file of another user is neither followed nor
        // overwritten.
        let _ = std::fs::remove_file(&draft);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&draft).map_err(failed)?;
        let made = RingWriter::fill(file, path, meta, slots, bytes)
            .and_then(|ring| std::fs::rename(&draft, path).map(|()| ring));
        if made.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        made.map_err(failed)
    }

    fn fill(file: File, path: &Path, meta: &str, slots: u64, bytes: u64) -> io::Result<RingWriter> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // If a full file system cannot provide a page, the first write ends the process; allocation makes that an
        // error.
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        // Touch all pages now, so that no control tick does it first.
        let mut options = MmapOptions::new();
        options.populate();
        // SAFETY: the file was just made, with this length, for this process; readers only read it. Only the same user
        // could shorten it, and that user may end this process, too.
        let map = unsafe { options.map_mut(&file) }?;
        let ring = RingWriter { path: path.to_owned(), _file: file, map, head: 0, slots };
        ring.describe(meta);
        let words = ring.words();
        for (at, value) in [(2, slots), (3, std::process::id().into()), (1, VERSION), (0, MAGIC)] {
            if let Some(word) = words.get(at) {
                word.store(value, Ordering::Release);
            }
        }
        Ok(ring)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn words(&self) -> &[AtomicU64] {
        words(&self.map)
    }

    fn describe(&self, meta: &str) {
        let bytes = meta.as_bytes();
        // A text that does not fit is omitted: half a JSON text is useless.
        let bytes = if bytes.len() <= META_WORDS * 8 { bytes } else { &[] };
        let words = self.words();
        store(words, META_AT, bytes);
        if let Some(length) = words.get(6) {
            length.store(bytes.len() as u64, Ordering::Release);
        }
    }

    /// Adds the next name; returns its number. Names beyond the table's end share the last number.
    pub(super) fn name(&mut self, name: &str) -> u16 {
        let words = self.words();
        let number = word(words, 5) as usize;
        if number >= NAMES {
            return (NAMES - 1) as u16;
        }
        let most = NAME_WORDS * 8 - 1;
        let mut length = name.len().min(most);
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        let mut bytes = [0; NAME_WORDS * 8];
        for (to, from) in bytes.iter_mut().zip(std::iter::once(length as u8).chain(name.bytes().take(length))) {
            *to = from;
        }
        store(words, NAMES_AT + number * NAME_WORDS, &bytes);
        if let Some(count) = words.get(5) {
            count.store(number as u64 + 1, Ordering::Release);
        }
        number as u16
    }

    /// Writes an event; a full ring overwrites the oldest.
    pub fn push(&mut self, event: &Event) {
        let n = self.head;
        let at = SLOTS_AT + (n & (self.slots - 1)) as usize * SLOT_WORDS;
        let words = self.words();
        let Some([sequence, data @ ..]) = words.get(at..at + SLOT_WORDS) else { return };
        sequence.store(2 * n + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in data.iter().zip(event.words()) {
            word.store(value, Ordering::Relaxed);
        }
        sequence.store(2 * n + 2, Ordering::Release);
        if let Some(head) = words.get(4) {
            head.store(n + 1, Ordering::Release);
        }
        self.head = n + 1;
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn store(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    for (word, chunk) in words.iter().skip(at).zip(bytes.chunks(8)) {
        let mut value = [0; 8];
        value.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
    }
}

fn load(words: &[AtomicU64], at: usize, bytes: usize) -> Vec<u8> {
    let from = words.iter().skip(at).take(bytes.div_ceil(8));
    let mut found: Vec<u8> = from.flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()).collect();
    found.truncate(bytes);
    found
}

/// A reader of a ring. It never writes to the ring.
#[derive(Debug)]
pub struct RingReader {
    file: File,
    map: Mmap,
    slots: u64,
    next: u64,
    lost: u64,
    names: Vec<String>,
}

impl RingReader {
    /// The ring of process `pid`, or of the only running daemon.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn attach(pid: Option<u32>) -> Result<RingReader, RingError> {
        RingReader::attach_in(Path::new(FOLDER), pid)
    }

    /// As [`attach`](Self::attach), with rings in `folder`.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn attach_in(folder: &Path, pid: Option<u32>) -> Result<RingReader, RingError> {
        let wanted = rings(folder).into_iter().filter(|(_, found)| pid.is_none_or(|pid| pid == *found));
        let (mut live, mut stale) = (Vec::new(), 0);
        for (path, found) in wanted {
            if locked(&path).unwrap_or(false) { live.push((path, found)) } else { stale += 1 }
        }
        match live.as_slice() {
            [] => Err(RingError::NoDaemon { folder: folder.to_owned(), stale }),
            [(path, _)] => RingReader::open(path),
            several if several.windows(2).all(|w| w[0].1 == w[1].1) => {
                // Several rings of one process: the latest.
                several.last().map_or_else(
                    || Err(RingError::NoDaemon { folder: folder.to_owned(), stale }),
                    |(path, _)| RingReader::open(path),
                )
            }
            several => Err(RingError::Several { found: several.iter().map(|(_, pid)| *pid).collect() }),
        }
    }

    /// The ring at `path`, whether or not its writer lives. Reading starts with the oldest available event.
    ///
    /// # Errors
    /// [`RingError::Io`], [`RingError::Form`], [`RingError::Version`].
    pub fn open(path: &Path) -> Result<RingReader, RingError> {
        let failed = |source: io::Error| RingError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let form = |expected: String, found: String| RingError::Form { path: path.to_owned(), expected, found };
        let bytes = file.metadata().map_err(failed)?.size();
        if bytes < SLOTS_AT as u64 * 8 {
            return Err(form(format!("at least {} bytes", SLOTS_AT * 8), format!("{bytes}")));
        }
        // SAFETY: the map is only read, through atomics; its length was just checked, and a ring is never shortened.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let head = words(&map);
        if word(head, 0) != MAGIC {
            return Err(form("the first bytes of a ring".to_owned(), format!("{:#x}", word(head, 0))));
        }
        let version = word(head, 1);
        if version != VERSION {
            return Err(RingError::Version { path: path.to_owned(), found: version });
        }
        let slots = word(head, 2);
        let expected = SLOTS_AT as u64 * 8 + slots.saturating_mul(SLOT_WORDS as u64 * 8);
        if !slots.is_power_of_two() || bytes < expected {
            return Err(form(format!("{expected} bytes for {slots} slots"), format!("{bytes}")));
        }
        let next = word(head, 4).saturating_sub(slots);
        Ok(RingReader { file, map, slots, next, lost: 0, names: Vec::new() })
    }

    /// The daemon's description of itself, a JSON text.
    pub fn meta(&self) -> String {
        let words = words(&self.map);
        let bytes = (word(words, 6) as usize).min(META_WORDS * 8);
        String::from_utf8_lossy(&load(words, META_AT, bytes)).into_owned()
    }

    /// The writer's process.
    pub fn pid(&self) -> u32 {
        word(words(&self.map), 3) as u32
    }

    /// Whether the writer lives.
    pub fn is_live(&self) -> bool {
        is_locked(&self.file).unwrap_or(false)
    }

    /// Skips all present events.
    pub fn skip_to_end(&mut self) {
        self.next = word(words(&self.map), 4);
    }

    /// Number of events that were overwritten before they were read.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Name number `number`; empty if it was not written.
    pub fn name(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or("", String::as_str)
    }

    /// Appends the events since the last call to `into`. Does not wait.
    pub fn read(&mut self, into: &mut Vec<Event>) {
        let words = words(&self.map);
        let head = word(words, 4);
        let oldest = head.saturating_sub(self.slots);
        self.lost += oldest.saturating_sub(self.next);
        self.next = self.next.max(oldest);
        while self.next < head {
            let n = self.next;
            self.next += 1;
            let at = SLOTS_AT + (n & (self.slots - 1)) as usize * SLOT_WORDS;
            let Some([sequence, data @ ..]) = words.get(at..at + SLOT_WORDS) else { return };
            let before = sequence.load(Ordering::Acquire);
            let found = std::array::from_fn(|i| data.get(i).map_or(0, |w: &AtomicU64| w.load(Ordering::Relaxed)));
            fence(Ordering::Acquire);
            let whole = before == 2 * n + 2 && sequence.load(Ordering::Relaxed) == before;
            match Event::of(found).filter(|_| whole) {
                Some(event) => into.push(event),
                None => self.lost += 1,
            }
        }
        // An event's name is written before the event.
        for number in self.names.len()..(word(words, 5) as usize).min(NAMES) {
            let bytes = load(words, NAMES_AT + number * NAME_WORDS, NAME_WORDS * 8);
            let length = bytes.first().copied().unwrap_or_default();
            let name = bytes.get(1..1 + usize::from(length)).unwrap_or_default();
            self.names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
}

/// The rings in `folder` and the processes in their names, by name.
fn rings(folder: &Path) -> Vec<(PathBuf, u32)> {
    let pid = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix("fathom-")?.strip_suffix(".ring")?;
        name.split('-').next()?.parse().ok()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(PathBuf, u32)> = entries.filter_map(|path| pid(&path).map(|pid| (path, pid))).collect();
    found.sort();
    found
}

/// Whether a live process holds the ring at `path`.
fn locked(path: &Path) -> io::Result<bool> {
    is_locked(&File::open(path)?)
}

fn is_locked(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::Unlock)?;
            Ok(false)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
