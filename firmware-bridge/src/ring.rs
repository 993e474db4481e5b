//! Ring buffers between a serial line's interrupt and the main loop.

use core::convert::Infallible;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// `N` bytes, a power of two, for one writer and one reader, either of which may be an interrupt.
///
/// It needs neither locks nor compare-and-swap.
pub struct Ring<const N: usize> {
    bytes: [AtomicU8; N],
    written: AtomicUsize,
    read: AtomicUsize,
    lost: AtomicU32,
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        Self {
            bytes: [const { AtomicU8::new(0) }; N],
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            lost: AtomicU32::new(0),
        }
    }

    fn place(&self, count: usize) -> Option<&AtomicU8> {
        self.bytes.get(count & N.wrapping_sub(1))
    }

    /// Appends a byte; returns `false` if the ring is full, and counts the byte as lost.
    pub fn push(&self, byte: u8) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        let room = written.wrapping_sub(self.read.load(Ordering::Acquire)) < N;
        match self.place(written).filter(|_| room) {
            Some(place) => {
                place.store(byte, Ordering::Relaxed);
                self.written.store(written.wrapping_add(1), Ordering::Release);
                true
            }
            None => {
                self.lost.store(self.lost.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
                false
            }
        }
    }

    /// Removes the oldest byte.
    pub fn pop(&self) -> Option<u8> {
        let read = self.read.load(Ordering::Relaxed);
        if read == self.written.load(Ordering::Acquire) {
            return None;
        }
        let byte = self.place(read)?.load(Ordering::Relaxed);
        self.read.store(read.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    /// Number of waiting bytes.
    pub fn len(&self) -> usize {
        self.written.load(Ordering::Acquire).wrapping_sub(self.read.load(Ordering::Acquire))
    }

    /// Whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of bytes lost to a full ring; wraps.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> core::fmt::Debug for Ring<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ring").field("len", &self.len()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// The main loop's end of a line whose interrupt fills `received` and empties `sending`. It never waits.
#[derive(Debug)]
pub struct RingSerial<'a, const R: usize, const S: usize> {
    received: &'a Ring<R>,
    sending: &'a Ring<S>,
    begin: fn(),
}

impl<'a, const R: usize, const S: usize> RingSerial<'a, R, S> {
    /// A line; `begin` makes the interrupt send from `sending`.
    pub fn new(received: &'a Ring<R>, sending: &'a Ring<S>, begin: fn()) -> Self {
        Self { received, sending, begin }
    }
}

impl<const R: usize, const S: usize> ErrorType for RingSerial<'_, R, S> {
    type Error = Infallible;
}

impl<const R: usize, const S: usize> ReadReady for RingSerial<'_, R, S> {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.received.is_empty())
    }
}

impl<const R: usize, const S: usize> Read for RingSerial<'_, R, S> {
    /// Takes the available bytes, possibly none.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        let mut count = 0_usize;
        for (place, byte) in out.iter_mut().zip(core::iter::from_fn(|| self.received.pop())) {
            *place = byte;
            count = count.wrapping_add(1);
        }
        Ok(count)
    }
}

impl<const R: usize, const S: usize> WriteReady for RingSerial<'_, R, S> {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.sending.len() < S)
    }
}

impl<const R: usize, const S: usize> Write for RingSerial<'_, R, S> {
    /// Queues as many bytes as fit.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let room = S.wrapping_sub(self.sending.len());
        let count = bytes.iter().take(room).filter(|byte| self.sending.push(**byte)).count();
        (self.begin)();
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
