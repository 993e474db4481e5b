//! A serial line that fails.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use super::{Dice, Faults, Kind, real_ns};
use crate::clock::NS_PER_S;

/// Damage to bytes in transit.
struct Damage {
    faults: Faults,
    dice: Dice,
    /// Bytes that are late, with the time at which they arrive.
    late: VecDeque<(u64, Vec<u8>)>,
}

impl Damage {
    fn new(faults: Faults, seed: &str) -> Damage {
        Damage { faults, dice: Dice::new(seed), late: VecDeque::new() }
    }

    fn check(&self) -> io::Result<()> {
        match self.faults.now(Kind::SerialUnplug, None) {
            Some(_) => Err(ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let share = |kind| self.faults.now(kind, None).unwrap_or(0.0);
        let (flips, losses) = (share(Kind::SerialFlip), share(Kind::SerialLoss));
        let delay_ns = (share(Kind::SerialDelay) * NS_PER_S as f64) as u64;
        let mut damaged = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if losses > 0.0 && self.dice.hits(losses) {
                continue;
            }
            let flip = flips > 0.0 && self.dice.hits(flips);
            damaged.push(if flip { byte ^ (1 << (self.dice.roll() % 8)) } else { *byte });
        }
        if !damaged.is_empty() {
            self.late.push_back((real_ns().saturating_add(delay_ns), damaged));
        }
    }

    fn arrived(&mut self) -> Option<Vec<u8>> {
        let now_ns = real_ns();
        self.late.pop_front_if(|(at_ns, _)| *at_ns <= now_ns).map(|(_, bytes)| bytes)
    }
}

/// The controller's bytes, damaged. Times out as the device does.
pub(crate) struct FaultyReader<R> {
    inner: R,
    damage: Damage,
}

impl<R: Read> FaultyReader<R> {
    pub(crate) fn new(inner: R, faults: Faults) -> FaultyReader<R> {
        FaultyReader { inner, damage: Damage::new(faults, "from the controller") }
    }
}

impl<R: Read> Read for FaultyReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.damage.check()?;
        if self.damage.late.is_empty() || self.damage.faults.now(Kind::SerialDelay, None).is_some() {
            match self.inner.read(into) {
                Ok(0) => return Ok(0),
                Ok(count) => self.damage.take(into.get(..count).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        self.damage.check()?;
        let mut bytes = self.damage.arrived().ok_or(ErrorKind::TimedOut)?;
        if bytes.len() > into.len() {
            self.damage.late.push_front((0, bytes.split_off(into.len())));
        }
        into.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        Ok(bytes.len())
    }
}

/// The host's bytes, damaged. Delayed bytes are sent with later ones.
pub(crate) struct FaultyWriter<W> {
    inner: W,
    damage: Damage,
}

impl<W: Write> FaultyWriter<W> {
    pub(crate) fn new(inner: W, faults: Faults) -> FaultyWriter<W> {
        FaultyWriter { inner, damage: Damage::new(faults, "from the host") }
    }
}

impl<W: Write> Write for FaultyWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.damage.check()?;
        self.damage.take(bytes);
        while let Some(mut due) = self.damage.arrived() {
            match self.inner.write(&due) {
                Ok(count) if count < due.len() => {
                    self.damage.late.push_front((0, due.split_off(count)));
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                    self.damage.late.push_front((0, due));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[&str]) -> Faults {
        let faults = Faults::new(texts.iter().map(|t| t.parse().unwrap()).collect());
        faults.begin();
        faults
    }

    #[test]
    fn a_share_of_the_bytes_is_damaged() {
        let mut writer = FaultyWriter::new(Vec::new(), faults(&["serial-flip=0.1"]));
        for _ in 0..100 {
            assert_eq!(writer.write(&[0; 100]).unwrap(), 100);
        }
        let flipped = writer.inner.iter().filter(|b| b.count_ones() == 1).count();
        assert!(writer.inner.len() == 10_000 && (800..1200).contains(&flipped), "{flipped} of 10000");
        let mut writer = FaultyWriter::new(Vec::new(), faults(&["serial-loss=0.1"]));
        writer.write_all(&[0; 10_000]).unwrap();
        assert!((8800..9200).contains(&writer.inner.len()), "{} of 10000", writer.inner.len());
    }

    #[test]
    fn bytes_are_late_whole_and_in_order() {
        fathom_contention::timed!();
        let mut writer = FaultyWriter::new(Vec::new(), faults(&["serial-delay=0.05+0.02"]));
        writer.write_all(b"one").unwrap();
        assert!(writer.inner.is_empty());
        std::thread::sleep(std::time::Duration::from_millis(70));
        writer.write_all(b"two").unwrap();
        assert_eq!(writer.inner, b"onetwo");
        let mut reader = FaultyReader::new(&b"abcdef"[..], faults(&[]));
        let mut two = [0; 2];
        assert_eq!((reader.read(&mut two).unwrap(), two), (2, *b"ab"));
        let mut unplugged = FaultyReader::new(&b"abcdef"[..], faults(&["serial-unplug"]));
        assert_eq!(unplugged.read(&mut two).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
