//! Arrays of numpy in msgpack, as openpi's `msgpack_numpy` writes them: a map with the binary keys `__ndarray__`, `data`, `dtype`
//! and `shape`; a scalar has `__npgeneric__` in the first one's place.

use rmpv::ValueRef;

/// Most values of an array.
const MOST: usize = 64 << 20;

/// The value of a map's key, which may be text or bytes.
pub(crate) fn get<'a, 'v>(map: &'a [(ValueRef<'v>, ValueRef<'v>)], key: &str) -> Option<&'a ValueRef<'v>> {
    let is = |found: &ValueRef<'_>| match found {
        ValueRef::String(text) => text.as_bytes() == key.as_bytes(),
        ValueRef::Binary(bytes) => *bytes == key.as_bytes(),
        _ => false,
    };
    map.iter().find(|(found, _)| is(found)).map(|(_, value)| value)
}

/// A value that is text, also as bytes.
pub(crate) fn text(value: &ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::String(text) => text.as_str().map(str::to_owned),
        ValueRef::Binary(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    }
}

/// The numbers of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Numbers {
    U1,
    I1,
    U2,
    I2,
    U4,
    I4,
    U8,
    I8,
    F2,
    F4,
    F8,
}

impl Numbers {
    fn of(dtype: &str) -> Option<Numbers> {
        Some(match dtype {
            "|u1" | "|b1" => Numbers::U1,
            "|i1" => Numbers::I1,
            "<u2" => Numbers::U2,
            "<i2" => Numbers::I2,
            "<u4" => Numbers::U4,
            "<i4" => Numbers::I4,
            "<u8" => Numbers::U8,
            "<i8" => Numbers::I8,
            "<f2" => Numbers::F2,
            "<f4" => Numbers::F4,
            "<f8" => Numbers::F8,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Numbers::U1 | Numbers::I1 => 1,
            Numbers::U2 | Numbers::I2 | Numbers::F2 => 2,
            Numbers::U4 | Numbers::I4 | Numbers::F4 => 4,
            Numbers::U8 | Numbers::I8 | Numbers::F8 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Numbers::F2 | Numbers::F4 | Numbers::F8)
    }
}

/// An array, row-major.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    pub(crate) numbers: Numbers,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: &'a [u8],
}

impl<'a> Array<'a> {
    /// The array that a value is; what is wrong with it otherwise.
    pub(crate) fn of(value: &ValueRef<'a>) -> Result<Array<'a>, String> {
        let ValueRef::Map(map) = value else { return Err("expected an array of numpy".to_owned()) };
        if get(map, "__ndarray__").is_none() {
            return Err("expected an array of numpy, found a map without __ndarray__".to_owned());
        }
        let dtype = get(map, "dtype").and_then(text).ok_or("expected an array's dtype, found none")?;
        let numbers = Numbers::of(&dtype)
            .ok_or_else(|| format!("expected a dtype of little-endian integers or floats, found {dtype:?}"))?;
        let Some(ValueRef::Array(sizes)) = get(map, "shape") else {
            return Err("expected an array's shape, found none".to_owned());
        };
        let size = |value: &ValueRef<'_>| match value {
            ValueRef::Integer(size) => size.as_u64().and_then(|size| usize::try_from(size).ok()),
            _ => None,
        };
        let shape = sizes.iter().map(size).collect::<Option<Vec<usize>>>();
        let shape = shape.ok_or("expected a shape of numbers from 0 on")?;
        let Some(ValueRef::Binary(data)) = get(map, "data") else {
            return Err("expected an array's data, found none".to_owned());
        };
        let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let count = count.filter(|count| *count <= MOST).ok_or_else(|| format!("{shape:?} is too large"))?;
        if data.len() != count * numbers.bytes() {
            let expected = count * numbers.bytes();
            return Err(format!("expected {expected} bytes for {dtype} {shape:?}, found {}", data.len()));
        }
        Ok(Array { numbers, shape, data })
    }

    /// Its numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.data.chunks_exact(self.numbers.bytes()).map(|bytes| number(self.numbers, bytes))
    }
}

/// Numbers of an array, a scalar or a list.
pub(crate) fn floats(value: &ValueRef<'_>) -> Result<Vec<f64>, String> {
    match value {
        ValueRef::Integer(number) => Ok(vec![number.as_f64().unwrap_or(f64::NAN)]),
        ValueRef::F32(number) => Ok(vec![f64::from(*number)]),
        ValueRef::F64(number) => Ok(vec![*number]),
        ValueRef::Array(list) => Ok(list.iter().map(floats).collect::<Result<Vec<_>, _>>()?.concat()),
        ValueRef::Map(map) if get(map, "__npgeneric__").is_some() => match get(map, "data") {
            Some(data) => floats(data),
            None => Err("expected a scalar's data, found none".to_owned()),
        },
        _ => Ok(Array::of(value)?.values().collect()),
    }
}

/// The little-endian number of these bytes, which are as many as it has.
fn number(numbers: Numbers, bytes: &[u8]) -> f64 {
    let mut eight = [0; 8];
    eight.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let whole = u64::from_le_bytes(eight);
    match numbers {
        Numbers::U1 | Numbers::U2 | Numbers::U4 | Numbers::U8 => whole as f64,
        Numbers::I1 => f64::from(whole as u8 as i8),
        Numbers::I2 => f64::from(whole as u16 as i16),
        Numbers::I4 => f64::from(whole as u32 as i32),
        Numbers::I8 => whole as i64 as f64,
        Numbers::F2 => half::f16::from_bits(whole as u16).to_f64(),
        Numbers::F4 => f64::from(f32::from_bits(whole as u32)),
        Numbers::F8 => f64::from_bits(whole),
    }
}

/// An array of f64 as a value.
pub(crate) fn value_of(values: impl Iterator<Item = f64>, shape: &[usize]) -> rmpv::Value {
    let key = |name: &str| rmpv::Value::Binary(name.as_bytes().to_vec());
    let data: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
    let sizes = shape.iter().map(|size| rmpv::Value::from(*size as u64)).collect();
    rmpv::Value::Map(vec![
        (key("__ndarray__"), rmpv::Value::from(true)),
        (key("data"), rmpv::Value::Binary(data)),
        (key("dtype"), rmpv::Value::from("<f8")),
        (key("shape"), rmpv::Value::Array(sizes)),
    ])
}
