//! The frame header of a JPEG picture, and the coefficients received for each component.

use super::JpegError;
use super::huffman::Table;
use super::scan::ScanHeader;

/// Limit on the blocks in a unit of an interleaved scan.
const MOST_BLOCKS: u32 = 10;

/// A component: luminance, or one of colour.
#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks in each unit of an interleaved scan.
    pub(super) across: u32,
    pub(super) down: u32,
    pub(super) quantisation: u8,
    /// Table slots of the current scan.
    pub(super) dc: usize,
    pub(super) ac: usize,
    /// Blocks in a row and rows of blocks of a scan of this component alone.
    pub(super) wide: u32,
    pub(super) high: u32,
    /// Lowest bit received of each coefficient; `None` before the first.
    sent: [Option<u8>; 64],
    /// A bit for each nonzero coefficient of each block; only for progressive pictures.
    nonzero: Vec<u64>,
}

impl Component {
    /// Coefficients of a block that earlier scans made nonzero.
    pub(super) fn nonzero(&self, block: u64) -> u64 {
        usize::try_from(block).ok().and_then(|block| self.nonzero.get(block)).copied().unwrap_or(0)
    }

    /// Records nonzero coefficients of a block.
    pub(super) fn mark(&mut self, block: u64, coefficients: u64) {
        if let Some(nonzero) = usize::try_from(block).ok().and_then(|block| self.nonzero.get_mut(block)) {
            *nonzero |= coefficients;
        }
    }
}

/// The frame header, and the coefficients that the scans have delivered.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: Vec<Component>,
    /// Units between two restart markers; 0 without.
    pub(super) restart_interval: u16,
    /// Units of an interleaved scan, across and down.
    units: (u32, u32),
}

impl Frame {
    /// Reads the body of a start-of-frame segment.
    pub(super) fn read(marker: u8, body: &[u8], bytes: usize) -> Result<Frame, JpegError> {
        let segment = |expected| JpegError::Segment { marker, expected, found: body.len() };
        let [precision, h1, h0, w1, w0, count, rest @ ..] = body else {
            return Err(segment("a frame header"));
        };
        if *precision != 8 {
            return Err(JpegError::Unsupported { marker, found: "another number of bits" });
        }
        let (height, width) = (u16::from_be_bytes([*h1, *h0]).into(), u16::from_be_bytes([*w1, *w0]).into());
        if width == 0 || height == 0 {
            return Err(JpegError::Empty { width, height });
        }
        let (parts, after) = rest.as_chunks::<3>();
        if parts.len() != usize::from(*count) || !after.is_empty() {
            return Err(segment("three bytes for each component"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(JpegError::Unsupported { marker, found: "a number of components that is not 1, 3 or 4" });
        }
        let sampling = |byte: u8| (u32::from(byte >> 4), u32::from(byte & 15));
        let mut most = (1, 1);
        for (number, [id, byte, _]) in parts.iter().enumerate() {
            let (across, down) = sampling(*byte);
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(JpegError::Segment { marker, expected: "1 to 4 samples", found: usize::from(*byte) });
            }
            if parts.iter().take(number).any(|[other, ..]| other == id) {
                return Err(JpegError::Segment {
                    marker,
                    expected: "components of one name each",
                    found: *id as usize,
                });
            }
            most = (most.0.max(across), most.1.max(down));
        }
        let units = (width.div_ceil(8 * most.0), height.div_ceil(8 * most.1));
        let components = parts.iter().map(|[id, byte, quantisation]| {
            let (across, down) = sampling(*byte);
            Component {
                id: *id,
                across,
                down,
                quantisation: *quantisation,
                dc: 0,
                ac: 0,
                wide: (width * across).div_ceil(8 * most.0),
                high: (height * down).div_ceil(8 * most.1),
                sent: [None; 64],
                nonzero: Vec::new(),
            }
        });
        let mut frame = Frame {
            progressive: marker == 0xc2,
            width,
            height,
            components: components.collect(),
            restart_interval: 0,
            units,
        };
        // Each block has at least a bit: a header alone cannot make a program allocate more memory than its picture
        // needs.
        let expected = frame.components.iter().map(|c| u64::from(c.wide) * u64::from(c.high)).sum();
        if expected > 8 * bytes as u64 {
            return Err(JpegError::TooShort { expected, bytes });
        }
        if frame.progressive {
            for component in &mut frame.components {
                let blocks = u64::from(component.wide) * u64::from(component.high);
                component.nonzero = vec![0; usize::try_from(blocks).unwrap_or(0)];
            }
        }
        Ok(frame)
    }

    /// The components of a scan.
    pub(super) fn of<'a>(&'a self, header: &'a ScanHeader) -> impl Iterator<Item = &'a Component> {
        header.components().iter().filter_map(|index| self.components.get(*index))
    }

    /// Units of a scan of these components, and blocks of a unit.
    pub(super) fn units(&self, components: &[usize]) -> (u64, u64) {
        match components {
            [one] => self.components.get(*one).map_or((0, 1), |c| (u64::from(c.wide) * u64::from(c.high), 1)),
            all => {
                let blocks = all.iter().filter_map(|index| self.components.get(*index)).map(|c| c.across * c.down);
                (u64::from(self.units.0) * u64::from(self.units.1), blocks.sum::<u32>().into())
            }
        }
    }

    /// Reads the body of a start-of-scan segment.
    pub(super) fn scan(&mut self, body: &[u8], number: usize) -> Result<ScanHeader, JpegError> {
        let segment = |expected| JpegError::Segment { marker: 0xda, expected, found: body.len() };
        let (count, rest) = body.split_first().ok_or(segment("a scan header"))?;
        let count = usize::from(*count);
        let (parts, [first, last, bits]) = rest
            .split_at_checked(2 * count)
            .and_then(|(parts, after)| Some((parts.as_chunks::<2>().0, <[u8; 3]>::try_from(after).ok()?)))
            .filter(|_| (1..=4).contains(&count))
            .ok_or(segment("1 to 4 components and 3 bytes"))?;
        let mut components = [0; 4];
        for (at, [id, slots]) in parts.iter().enumerate() {
            let index = self.components.iter().position(|component| component.id == *id);
            let named = || JpegError::Segment { marker: 0xda, expected: "a component", found: usize::from(*id) };
            let index = index.filter(|index| !components.iter().take(at).any(|c| c == index)).ok_or_else(named)?;
            if let Some(component) = self.components.get_mut(index) {
                (component.dc, component.ac) = (usize::from(slots >> 4), usize::from(slots & 15));
            }
            if let Some(to) = components.get_mut(at) {
                *to = index;
            }
        }
        let (band, bits) = match self.progressive {
            true => ((u32::from(first), u32::from(last)), (bits >> 4, bits & 15)),
            false => ((0, 63), (0, 0)),
        };
        let header = ScanHeader { number, components, count, band, bits };
        let blocks = self.units(header.components()).1;
        if blocks > u64::from(MOST_BLOCKS) {
            return Err(segment("at most 10 blocks in a unit"));
        }
        let dc = band == (0, 0);
        let ac = count == 1 && 0 < band.0 && band.0 <= band.1 && band.1 < 64;
        if self.progressive && !dc && !ac || bits.1 > 13 {
            return Err(segment("a band of coefficients"));
        }
        if !self.progressive && !self.is_in_order(&header) {
            return Err(JpegError::Unsupported {
                marker: 0xda,
                found: "a scan of some components, one of them subsampled",
            });
        }
        Ok(header)
    }

    /// Whether the decoder places the blocks of a sequential scan correctly. If the components arrive in several scans,
    /// it takes one row of blocks of each for one row of units, and one block of each for one unit.
    fn is_in_order(&self, header: &ScanHeader) -> bool {
        header.count == self.components.len()
            || self.components.iter().all(|component| component.down == 1)
                && (header.count == 1 || self.of(header).all(|component| component.across == 1))
    }

    /// Records the coefficients that a scan delivers.
    ///
    /// # Errors
    /// [`JpegError::Progression`] if the scan does not continue the earlier ones.
    pub(super) fn bring(&mut self, header: &ScanHeader) -> Result<(), JpegError> {
        let refuse = JpegError::Progression { scan: header.number };
        for index in header.components() {
            let component = self.components.get_mut(*index).ok_or(refuse.clone())?;
            // If DC coefficients arrive after others, the decoder has no block for those.
            let dc = component.sent.first().is_some_and(|sent| sent.is_some());
            if header.band.0 > 0 && !dc {
                return Err(refuse);
            }
            let (from, to) = header.band;
            for sent in component.sent.iter_mut().take(to as usize + 1).skip(from as usize) {
                let (high, low) = header.bits;
                let continues = match sent {
                    None => high == 0,
                    Some(before) => high == *before && low + 1 == high,
                };
                if !continues {
                    return Err(refuse);
                }
                *sent = Some(low);
            }
        }
        Ok(())
    }

    /// Whether all bits of all coefficients were received.
    pub(super) fn is_whole(&self) -> bool {
        self.components.iter().all(|component| component.sent.iter().all(|sent| *sent == Some(0)))
    }

    /// Coefficients that are still missing after `scans` scans.
    pub(super) fn missing(&self, scans: usize) -> Result<(), JpegError> {
        for (number, c) in self.components.iter().enumerate() {
            let component = number + 1;
            if c.sent.iter().all(Option::is_none) {
                return Err(JpegError::Component { component, scans });
            }
            if c.sent.iter().any(|sent| *sent != Some(0)) {
                return Err(JpegError::Coefficients { component, scans });
            }
        }
        Ok(())
    }
}

/// The current Huffman tables.
#[derive(Default)]
pub(super) struct Tables {
    dc: [Option<Box<Table>>; 4],
    ac: [Option<Box<Table>>; 4],
}

impl Tables {
    /// Reads the body of a define-Huffman-tables segment.
    pub(super) fn define(&mut self, body: &[u8]) -> Result<(), JpegError> {
        let segment = |expected| JpegError::Segment { marker: 0xc4, expected, found: body.len() };
        let mut rest = body;
        while let Some((which, after)) = rest.split_first() {
            let (counts, after) = after.split_first_chunk::<16>().ok_or(segment("16 counts"))?;
            let symbols = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, after) = after
                .split_at_checked(symbols)
                .filter(|(symbols, _)| symbols.len() <= 256)
                .ok_or(segment("as many symbols as its counts"))?;
            let (class, slot) = (usize::from(which >> 4), usize::from(which & 15));
            let tables = match class {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(segment("class 0 or 1")),
            };
            let table = tables.get_mut(slot).ok_or(segment("slot 0 to 3"))?;
            *table = Some(Table::new(counts, symbols, class == 0)?);
            rest = after;
        }
        Ok(())
    }

    /// Adds the default tables that a scan needs and the picture lacks.
    pub(super) fn complete(&mut self, frame: &Frame, header: &ScanHeader) {
        let complete = |table: Option<&mut Option<Box<Table>>>, class, slot| {
            if let Some(table @ None) = table {
                *table = Table::default(class, slot);
            }
        };
        for component in frame.of(header) {
            complete(self.dc.get_mut(component.dc), 0, component.dc);
            complete(self.ac.get_mut(component.ac), 1, component.ac);
        }
    }

    pub(super) fn dc(&self, scan: usize, slot: usize) -> Result<&Table, JpegError> {
        self.dc.get(slot).and_then(Option::as_deref).ok_or(JpegError::NoTable { scan, class: "DC", slot })
    }

    pub(super) fn ac(&self, scan: usize, slot: usize) -> Result<&Table, JpegError> {
        self.ac.get(slot).and_then(Option::as_deref).ok_or(JpegError::NoTable { scan, class: "AC", slot })
    }
}
