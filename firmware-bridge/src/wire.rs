//! Parts of a body in little-endian order, read and written without a panic path.

use cobs::CobsEncoder;
use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};

use crate::fault::Fault;
use crate::schema::Part;

/// CRC-32 as in Ethernet and zip (polynomial 0x04C11DB7, reflected).
pub(crate) const CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);
static CRC_TABLE: Crc<u32, Table<1>> = CRC;

/// CRC-32 of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    CRC_TABLE.checksum(bytes)
}

/// A part of a body.
pub(crate) trait Wire<'a>: Sized {
    /// Most bytes.
    const MAX: usize;
    /// Its text in the schema, where `$` stands for the field's name and `#` for [`PARTS`](Self::PARTS).
    const TEXT: &'static str = "#";
    /// The fields of a record.
    const PARTS: &'static [Part] = &[];

    /// Writes the bytes.
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full>;

    /// Reads the bytes from the front.
    fn read(r: &mut Reader<'a>) -> Option<Self>;

    /// Records the flags and the number of joints that the record writes before this part.
    fn note(&self, _context: &mut Context) {}
}

/// A value that is written as its default if its flag marks it absent.
pub(crate) trait Flagged: Default {}

/// Parts of a frame that later parts depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// Type byte of the message.
    pub(crate) kind: u8,
    /// Number of joints.
    pub(crate) joints: u8,
    /// The latched fault.
    pub(crate) fault: Option<Fault>,
    /// Flags of the optional parts: all of them when writing, the remaining ones when reading.
    flags: u8,
    /// The next flag to be written.
    next: u8,
}

impl Context {
    const fn new(kind: u8) -> Self {
        Self { kind, joints: 0, fault: None, flags: 0, next: 1 }
    }

    fn of<'a>(record: &impl Wire<'a>) -> Self {
        let mut context = Self::new(0);
        record.note(&mut context);
        context
    }

    fn add_flag(&mut self, set: bool) {
        if set {
            self.flags |= self.next;
        }
        self.next = self.next.wrapping_shl(1);
    }

    fn take_flag(&mut self) -> bool {
        let set = self.flags & 1 != 0;
        self.flags = self.flags.wrapping_shr(1);
        set
    }
}

/// Reads parts from the front of a slice; `None` if it is too short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    pub(crate) context: Context,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, context: Context::new(0) }
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        Some(head)
    }

    /// All remaining bytes.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.bytes)
    }

    /// Whether no bytes and no flags remain.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes.is_empty() && self.context.flags == 0
    }

    /// The type byte.
    pub(crate) fn kind(&mut self) -> Option<()> {
        self.context.kind = u8::read(self)?;
        Some(())
    }

    /// The flags of the following parts; all earlier flags must have been used.
    pub(crate) fn flags(&mut self) -> Option<()> {
        if self.context.flags != 0 {
            return None;
        }
        self.context.flags = u8::read(self)?;
        Some(())
    }

    /// The number of joints.
    pub(crate) fn joints(&mut self) -> Option<()> {
        self.context.joints = u8::read(self)?;
        Some(())
    }
}

/// The output buffer is too small for the frame, or the message contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Writes parts as COBS directly into the output and computes their CRC.
pub(crate) struct Writer<'a> {
    cobs: CobsEncoder<'a>,
    crc: Digest<'static, u32, Table<1>>,
    pub(crate) context: Context,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(kind: u8, out: &'a mut [u8]) -> Self {
        Self { cobs: CobsEncoder::new(out), crc: CRC_TABLE.digest(), context: Context::new(kind) }
    }

    // Once in the firmware rather than at each number.
    #[inline(never)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        // An empty push would move the encoder's write position.
        if bytes.is_empty() {
            return Ok(());
        }
        self.crc.update(bytes);
        self.cobs.push(bytes).map_err(|_| Full)
    }

    /// The type byte.
    pub(crate) fn kind<'b>(&mut self, _: &impl Wire<'b>) -> Result<(), Full> {
        let kind = self.context.kind;
        kind.write(self)
    }

    /// The flags of a record.
    pub(crate) fn flags<'b>(&mut self, record: &impl Wire<'b>) -> Result<(), Full> {
        Context::of(record).flags.write(self)
    }

    /// The number of a record's joints.
    pub(crate) fn joints<'b>(&mut self, record: &impl Wire<'b>) -> Result<(), Full> {
        let joints = Context::of(record).joints;
        self.context.joints = joints;
        joints.write(self)
    }

    /// Appends the CRC and closes the COBS block; returns the length without the terminator.
    pub(crate) fn finish(self) -> Result<usize, Full> {
        let Self { mut cobs, crc, .. } = self;
        cobs.push(&crc.finalize().to_le_bytes()).map_err(|_| Full)?;
        Ok(cobs.finalize())
    }
}

macro_rules! numbers {
    ($($type:ident),*) => { $(
        impl<'a> Wire<'a> for $type {
            const MAX: usize = size_of::<Self>();
            const TEXT: &'static str = concat!("$ ", stringify!($type));

            fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
                w.bytes(&self.to_le_bytes())
            }

            fn read(r: &mut Reader<'a>) -> Option<Self> {
                let (head, tail) = r.bytes.split_first_chunk()?;
                r.bytes = tail;
                Some(Self::from_le_bytes(*head))
            }
        }
    )* };
}

numbers!(u8, u16, u32, u64, f32);

impl<'a> Wire<'a> for [f32; 2] {
    const MAX: usize = 8;
    const TEXT: &'static str = "min_$ f32, max_$ f32";

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        self.iter().try_for_each(|value| value.write(w))
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        Some([f32::read(r)?, f32::read(r)?])
    }
}

/// A flag without bytes of its own.
impl<'a> Wire<'a> for bool {
    const MAX: usize = 0;
    const TEXT: &'static str = "";

    fn write(&self, _: &mut Writer<'_>) -> Result<(), Full> {
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        Some(r.context.take_flag())
    }

    fn note(&self, context: &mut Context) {
        context.add_flag(*self);
    }
}

/// Zeros where the flag is clear.
impl<'a, T: Wire<'a> + Flagged> Wire<'a> for Option<T> {
    const MAX: usize = T::MAX;
    const TEXT: &'static str = T::TEXT;
    const PARTS: &'static [Part] = T::PARTS;

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Some(value) => value.write(w),
            None => T::default().write(w),
        }
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let value = T::read(r)?;
        Some(r.context.take_flag().then_some(value))
    }

    fn note(&self, context: &mut Context) {
        context.add_flag(self.is_some());
    }
}

impl Flagged for u32 {}
impl Flagged for [f32; 2] {}
