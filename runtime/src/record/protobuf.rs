//! The subset of protobuf for images and joints: `foxglove.RawImage`, `fathom.Joint`, and their descriptors.

/// Writes a message field by field.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(super) fn number(&mut self, field: u32, value: u64) -> &mut Writer {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) -> &mut Writer {
        self.varint(u64::from(field) << 3 | 5);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Writer {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer)) -> &mut Writer {
        let mut inner = Writer::default();
        write(&mut inner);
        self.bytes(field, &inner.bytes)
    }
}

/// A field's value in its wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in order; `None` if it is truncated or has an unsupported kind.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value)
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk::<4>()?;
                bytes = rest;
                Value::Number(u32::from_le_bytes(*value).into())
            }
            _ => return None,
        };
        fields.push((u32::try_from(key >> 3).ok()?, value));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Types of a descriptor's field.
const STRING: u64 = 9;
const MESSAGE: u64 = 11;
const BYTES: u64 = 12;
const INT32: u64 = 5;
const INT64: u64 = 3;
const FIXED32: u64 = 7;
const FLOAT: u64 = 2;

fn field(w: &mut Writer, name: &str, number: u64, kind: u64, of: Option<&str>) {
    w.message(2, |w| {
        w.bytes(1, name.as_bytes()).number(3, number).number(4, 1).number(5, kind);
        if let Some(of) = of {
            w.bytes(6, of.as_bytes());
        }
    });
}

/// One joint as the controller reports it, in the joint's unit: `fathom.Joint`.
pub(super) fn joint(measured: f32, commanded: f32) -> Vec<u8> {
    let mut w = Writer::default();
    w.fixed32(1, measured.to_bits()).fixed32(2, commanded.to_bits());
    w.into_bytes()
}

/// The `FileDescriptorSet` of `fathom.Joint`.
pub(super) fn joint_descriptor() -> Vec<u8> {
    let mut set = Writer::default();
    set.message(1, |w| {
        w.bytes(1, b"fathom/Joint.proto").bytes(2, b"fathom");
        w.message(4, |w| {
            w.bytes(1, b"Joint");
            field(w, "measured", 1, FLOAT, None);
            field(w, "commanded", 2, FLOAT, None);
        });
        w.bytes(12, b"proto3");
    });
    set.into_bytes()
}

/// The `FileDescriptorSet` of `foxglove.RawImage`, from Foxglove's schemas.
pub(super) fn raw_image_descriptor() -> Vec<u8> {
    let mut set = Writer::default();
    set.message(1, |w| {
        w.bytes(1, b"google/protobuf/timestamp.proto").bytes(2, b"google.protobuf");
        w.message(4, |w| {
            w.bytes(1, b"Timestamp");
            field(w, "seconds", 1, INT64, None);
            field(w, "nanos", 2, INT32, None);
        });
        w.bytes(12, b"proto3");
    });
    set.message(1, |w| {
        w.bytes(1, b"foxglove/RawImage.proto").bytes(2, b"foxglove").bytes(3, b"google/protobuf/timestamp.proto");
        w.message(4, |w| {
            w.bytes(1, b"RawImage");
            field(w, "timestamp", 1, MESSAGE, Some(".google.protobuf.Timestamp"));
            field(w, "width", 2, FIXED32, None);
            field(w, "height", 3, FIXED32, None);
            field(w, "encoding", 4, STRING, None);
            field(w, "step", 5, FIXED32, None);
            field(w, "data", 6, BYTES, None);
            field(w, "frame_id", 7, STRING, None);
        });
        w.bytes(12, b"proto3");
    });
    set.into_bytes()
}
