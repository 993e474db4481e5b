//! Reads the entropy-coded data of a scan, and checks that every block is present.
//!
//! The decoder invents missing blocks. This module reads every Huffman code and computes no coefficient.

use super::JpegError;
use super::bits::{Bits, after_fill_bytes};
use super::error::Found;
use super::frame::{Component, Frame, Tables};
use super::huffman::{END_OF_BLOCK, Table};

/// Accepted surplus bytes after the last block of a scan or of a restart interval. Some cameras (Logitech's C270 and
/// C310) send a few too many; a mismatch between picture and header leaves far more.
const SURPLUS: usize = 1024;

/// A scan header.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanHeader {
    /// Its number in the picture, from 1.
    pub(super) number: usize,
    /// Indices of its components.
    pub(super) components: [usize; 4],
    /// Their number, 1 to 4.
    pub(super) count: usize,
    /// First and last coefficient, in zigzag order.
    pub(super) band: (u32, u32),
    /// The bit of the scan before, 0 for the first; and the bit of this scan.
    pub(super) bits: (u8, u8),
}

impl ScanHeader {
    pub(super) fn components(&self) -> &[usize] {
        self.components.get(..self.count).unwrap_or_default()
    }
}

/// The kind of a unit in a scan.
enum Unit {
    Whole,
    NoCode,
    Overfull,
}

/// Reads a scan whose data start at byte `at`, and appends it to `clean` without surplus bytes and fill bytes. Returns
/// the position of the next marker, or the end of the data.
///
/// # Errors
/// A [`JpegError`] if blocks are missing, or restart markers are missing or out of order.
pub(super) fn walk(
    data: &[u8],
    at: usize,
    frame: &mut Frame,
    tables: &Tables,
    header: &ScanHeader,
    clean: &mut Vec<u8>,
) -> Result<usize, JpegError> {
    let mut intervals = Intervals::new(data, at, frame, header, clean);
    if frame.progressive {
        match (header.band.0, header.bits.0) {
            (0, 0) => dc_first(&mut intervals, frame, tables, header)?,
            (0, _) => dc_refinement(&mut intervals)?,
            (_, 0) => ac_first(&mut intervals, frame, tables, header)?,
            (_, _) => ac_refinement(&mut intervals, frame, tables, header)?,
        }
    } else {
        sequential(&mut intervals, frame, tables, header)?;
    }
    intervals.end()
}

/// The restart intervals of a scan, or its single interval.
struct Intervals<'a> {
    data: &'a [u8],
    clean: &'a mut Vec<u8>,
    scan: usize,
    bits: Bits<'a>,
    /// Start of the data of the current interval.
    start: usize,
    /// Units of a restart interval; 0 without intervals.
    interval: u64,
    /// Units of the scan, and the number of those read.
    units: u64,
    done: u64,
    /// End of the current interval.
    until: u64,
    /// Blocks of a unit.
    blocks: u64,
    /// Number of the next restart marker.
    restart: u8,
}

impl<'a> Intervals<'a> {
    fn new(data: &'a [u8], at: usize, frame: &Frame, header: &ScanHeader, clean: &'a mut Vec<u8>) -> Intervals<'a> {
        let interval = u64::from(frame.restart_interval);
        let (units, blocks) = frame.units(header.components());
        let until = if interval == 0 { units } else { units.min(interval) };
        let bits = Bits::new(data, at);
        Intervals {
            data,
            clean,
            scan: header.number,
            bits,
            start: at,
            interval,
            units,
            done: 0,
            until,
            blocks,
            restart: 0,
        }
    }

    /// Visits all units of the scan. `unit` reads one unit; it receives the unit's number and whether it is the first
    /// of an interval.
    #[inline(always)]
    fn each(&mut self, mut unit: impl FnMut(&mut Bits<'a>, u64, bool) -> Unit) -> Result<(), JpegError> {
        loop {
            let mut bits = self.bits;
            let mut first = true;
            while self.done < self.until {
                let walked = unit(&mut bits, self.done, first);
                first = false;
                let (scan, found, expected) = (self.scan, self.done * self.blocks, self.units * self.blocks);
                if bits.overrun() {
                    return Err(JpegError::Cut { scan, found, expected });
                }
                match walked {
                    Unit::Whole => self.done += 1,
                    Unit::NoCode => return Err(JpegError::Code { scan, found, expected }),
                    Unit::Overfull => return Err(JpegError::Overfull { scan, found, expected }),
                }
            }
            self.bits = bits;
            if self.done == self.units {
                return Ok(());
            }
            self.next_interval()?;
        }
    }

    /// Skips the restart marker that is due.
    fn next_interval(&mut self) -> Result<(), JpegError> {
        let at = self.end()?;
        let code = after_fill_bytes(self.data, at);
        let found = self.data.get(code).map_or(Found::End, |marker| Found::Marker(*marker));
        let marker = 0xd0 + self.restart;
        if found != Found::Marker(marker) {
            let blocks = self.done * self.blocks;
            return Err(JpegError::Restart { scan: self.scan, expected: self.restart, found, blocks });
        }
        self.clean.extend([0xff, marker]);
        self.restart = (self.restart + 1) % 8;
        self.start = code + 1;
        self.bits = Bits::new(self.data, self.start);
        self.until = self.units.min(self.done + self.interval);
        Ok(())
    }

    /// Appends the current interval's data to the clean picture; returns the position of the next marker.
    fn end(&mut self) -> Result<usize, JpegError> {
        let end = self.bits.end();
        self.clean.extend(self.data.get(self.start..end).unwrap_or_default());
        let (mut at, mut surplus) = (end, 0);
        loop {
            match self.data.get(at) {
                Some(0xff) => match self.data.get(after_fill_bytes(self.data, at)) {
                    Some(0) => (at, surplus) = (after_fill_bytes(self.data, at) + 1, surplus + 1),
                    _ => break,
                },
                Some(0) => at += 1,
                Some(_) => (at, surplus) = (at + 1, surplus + 1),
                None => break,
            }
        }
        // Without a marker, data of the scan cannot be distinguished from old data in the buffer after a cut.
        if at > end && self.data.get(after_fill_bytes(self.data, at)).is_none() {
            return Err(JpegError::NoMarker { scan: self.scan, bytes: self.data.len() - end });
        }
        if surplus > SURPLUS {
            return Err(JpegError::Surplus { scan: self.scan, bytes: surplus, blocks: self.done * self.blocks });
        }
        Ok(at)
    }
}

/// Reads a block of a sequential scan.
#[inline(always)]
fn block(bits: &mut Bits<'_>, dc: &Table, ac: &Table) -> Unit {
    bits.fill();
    let Some(code) = dc.code(bits) else { return Unit::NoCode };
    bits.skip(code.total());
    let mut at = 1;
    while at < 64 {
        bits.fill();
        let Some(codes) = ac.ac_codes(bits) else { return Unit::NoCode };
        // The second of a pair may belong to the next block.
        let (advance, count) = if at + codes.first().0 < 64 { codes.both() } else { codes.first() };
        bits.skip(count);
        at += advance;
    }
    if at > 64 && at < END_OF_BLOCK { Unit::Overfull } else { Unit::Whole }
}

fn sequential(
    intervals: &mut Intervals<'_>,
    frame: &Frame,
    tables: &Tables,
    header: &ScanHeader,
) -> Result<(), JpegError> {
    let mut of_unit: Vec<(&Table, &Table)> = Vec::with_capacity(10);
    for component in frame.of(header) {
        let pair = (tables.dc(header.number, component.dc)?, tables.ac(header.number, component.ac)?);
        let blocks = if header.count == 1 { 1 } else { component.across * component.down };
        of_unit.extend(std::iter::repeat_n(pair, blocks as usize));
    }
    intervals.each(|bits, _, _| {
        for (dc, ac) in &of_unit {
            match block(bits, dc, ac) {
                Unit::Whole => {}
                broken => return broken,
            }
        }
        Unit::Whole
    })
}

fn dc_first(
    intervals: &mut Intervals<'_>,
    frame: &Frame,
    tables: &Tables,
    header: &ScanHeader,
) -> Result<(), JpegError> {
    let mut of_unit = Vec::with_capacity(10);
    for component in frame.of(header) {
        let blocks = if header.count == 1 { 1 } else { component.across * component.down };
        of_unit.extend(std::iter::repeat_n(tables.dc(header.number, component.dc)?, blocks as usize));
    }
    intervals.each(|bits, _, _| {
        for dc in &of_unit {
            bits.fill();
            let Some(code) = dc.code(bits) else { return Unit::NoCode };
            bits.skip(code.total());
        }
        Unit::Whole
    })
}

fn dc_refinement(intervals: &mut Intervals<'_>) -> Result<(), JpegError> {
    let blocks = intervals.blocks;
    intervals.each(|bits, _, _| {
        for _ in 0..blocks {
            bits.fill();
            bits.skip(1);
        }
        Unit::Whole
    })
}

/// The component of a scan of AC coefficients, and its table.
fn of_ac<'a>(
    frame: &'a mut Frame,
    tables: &'a Tables,
    header: &ScanHeader,
) -> Result<(&'a mut Component, &'a Table), JpegError> {
    let component = header.components().first().and_then(|index| frame.components.get_mut(*index));
    let component = component.ok_or(JpegError::Progression { scan: header.number })?;
    let table = tables.ac(header.number, component.ac)?;
    Ok((component, table))
}

fn ac_first(
    intervals: &mut Intervals<'_>,
    frame: &mut Frame,
    tables: &Tables,
    header: &ScanHeader,
) -> Result<(), JpegError> {
    let (component, table) = of_ac(frame, tables, header)?;
    let (first, last) = header.band;
    // Blocks known to have no further coefficients.
    let mut run = 0_u32;
    intervals.each(|bits, number, begins| {
        if begins {
            run = 0;
        }
        if run > 0 {
            run -= 1;
            return Unit::Whole;
        }
        let mut nonzero = 0_u64;
        let mut at = first;
        while at <= last {
            bits.fill();
            let Some(code) = table.code(bits) else { return Unit::NoCode };
            bits.skip(code.length());
            match (code.symbol() >> 4, code.symbol() & 15) {
                (15, 0) => at += 16,
                (zeros, 0) => {
                    run = (1 << zeros) + bits.take(zeros) - 1;
                    break;
                }
                (zeros, size) => {
                    at += zeros;
                    if at > last {
                        return Unit::Overfull;
                    }
                    bits.fill();
                    bits.skip(size);
                    nonzero |= 1 << at;
                    at += 1;
                }
            }
        }
        component.mark(number, nonzero);
        Unit::Whole
    })
}

fn ac_refinement(
    intervals: &mut Intervals<'_>,
    frame: &mut Frame,
    tables: &Tables,
    header: &ScanHeader,
) -> Result<(), JpegError> {
    let (component, table) = of_ac(frame, tables, header)?;
    let (first, last) = header.band;
    let mut run = 0_u32;
    intervals.each(|bits, number, begins| {
        if begins {
            run = 0;
        }
        let before = component.nonzero(number);
        let mut nonzero = before;
        let mut at = first;
        while run == 0 && at <= last {
            bits.fill();
            let Some(code) = table.code(bits) else { return Unit::NoCode };
            bits.skip(code.length());
            let (mut zeros, value) = (code.symbol() >> 4, code.symbol() & 15 != 0);
            if value {
                // Its sign.
                bits.take(1);
            } else if zeros < 15 {
                run = (1 << zeros) + bits.take(zeros);
                break;
            }
            // A correction bit for each existing value, up to the place after `zeros` missing ones.
            while at <= last {
                if before >> at & 1 == 1 {
                    bits.take(1);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if value {
                if at > last {
                    return Unit::Overfull;
                }
                nonzero |= 1 << at;
            }
            at += 1;
        }
        if run > 0 {
            while at <= last {
                bits.take((before >> at & 1) as u32);
                at += 1;
            }
            run -= 1;
        }
        component.mark(number, nonzero);
        Unit::Whole
    })
}
