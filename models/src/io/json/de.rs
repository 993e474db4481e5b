//! A tree to whatever serde can make of it, with the path of the key in each error.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use super::{Json, JsonError};

/// Reads a value whose key has the path `path`.
pub(super) fn read<'de, T: Deserialize<'de>>(json: &'de Json<'_>, path: String) -> Result<T, JsonError> {
    T::deserialize(Node(json)).map_err(|wrong| {
        let mut key = path;
        for part in wrong.path.iter().rev() {
            match part {
                Part::Key(name) => push(&mut key, name),
                Part::Index(i) => key += &format!("[{i}]"),
            }
        }
        match wrong.what {
            What::Value { expected, found } => JsonError::Value { key, expected, found },
            What::Other(detail) => JsonError::Key { key, detail },
        }
    })
}

/// Appends a key to a path; one that has a dot itself is in brackets.
pub(super) fn push(path: &mut String, key: &str) {
    if key.contains(['.', ' ', '[']) || key.is_empty() {
        *path += &format!("[{key:?}]");
    } else {
        if !path.is_empty() {
            path.push('.');
        }
        *path += key;
    }
}

#[derive(Debug)]
enum Part {
    Key(String),
    Index(usize),
}

#[derive(Debug)]
enum What {
    Value { expected: String, found: String },
    Other(String),
}

/// An error on its way out of the tree.
#[derive(Debug)]
struct Wrong {
    what: What,
    /// Innermost first.
    path: Vec<Part>,
}

impl Wrong {
    fn value(expected: impl Into<String>, found: impl Into<String>) -> Wrong {
        Wrong { what: What::Value { expected: expected.into(), found: found.into() }, path: Vec::new() }
    }

    fn within(mut self, part: Part) -> Wrong {
        self.path.push(part);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Value { expected, found } => write!(f, "expected {expected}, found {found}"),
            What::Other(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(detail: T) -> Wrong {
        Wrong { what: What::Other(detail.to_string()), path: Vec::new() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::value(plain(&expected.to_string()), seen(found))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::value(plain(&expected.to_string()), seen(found))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Wrong {
        Wrong::value(plain(&expected.to_string()), format!("{length} elements"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Wrong {
        Wrong::value(format!("one of {}", expected.join(", ")), format!("the text {variant:?}"))
    }

    fn missing_field(field: &'static str) -> Wrong {
        Wrong::value("a value", "no such key").within(Part::Key(field.to_owned()))
    }
}

/// A type in words, where serde has Rust's name for it.
fn plain(expected: &str) -> String {
    match expected {
        "usize" | "u64" => "a whole number, 0 or more".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "i64" => "a whole number".to_owned(),
        "i32" => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        "f32" | "f64" => "a number".to_owned(),
        "a string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.replace("an array of length", "a list of"),
    }
}

/// A value in words, where serde has it on hand.
fn seen(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// A value to read.
struct Node<'de, 'a>(&'de Json<'a>);

impl<'de> Node<'de, '_> {
    fn wrong(&self, expected: &dyn Expected) -> Wrong {
        Wrong::value(plain(&expected.to_string()), self.0.describe())
    }

    fn integer<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Json::Integer(value) = self.0 else { return Err(self.wrong(&visitor)) };
        match (u64::try_from(*value), i64::try_from(*value)) {
            (Ok(value), _) => visitor.visit_u64(value),
            (_, Ok(value)) => visitor.visit_i64(value),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn float<V: Visitor<'de>>(self, largest: f64, visitor: V) -> Result<V::Value, Wrong> {
        let value = match self.0 {
            Json::Integer(value) => *value as f64,
            Json::Float(value) => *value,
            _ => return Err(self.wrong(&visitor)),
        };
        match value.abs() <= largest {
            true => visitor.visit_f64(value),
            false => Err(Wrong::value(format!("a number of at most {largest:e}"), self.0.describe())),
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.integer(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Integer(_) => self.integer(visitor),
            Json::Float(value) if value.is_finite() => visitor.visit_f64(*value),
            Json::String(text) => visitor.visit_str(text),
            Json::Array(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Json::Object(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
            Json::Float(_) | Json::Unreadable(_) => Err(self.wrong(&visitor)),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.float(f64::from(f32::MAX), visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.float(f64::MAX, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if *self.0 == Json::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Json::String(text) => visitor.visit_enum(text.as_ref().into_deserializer()),
            Json::Object(entries) => match entries.as_slice() {
                [(name, value)] => visitor.visit_enum(Variant { name, value }),
                _ => Err(Wrong::value("an object with one key", self.0.describe())),
            },
            _ => Err(Wrong::value("a text", self.0.describe())),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

struct Items<'de, 'a>(std::iter::Enumerate<std::slice::Iter<'de, Json<'a>>>);

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((i, item)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Node(item)).map(Some).map_err(|wrong| wrong.within(Part::Index(i)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

type Entry<'a> = (std::borrow::Cow<'a, str>, Json<'a>);

struct Entries<'de, 'a> {
    entries: std::slice::Iter<'de, Entry<'a>>,
    /// Of the key that was read last.
    value: Option<&'de Entry<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        seed.deserialize(key.as_ref().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some((key, value)) = self.value else { return Err(de::Error::custom("a value without a key")) };
        seed.deserialize(Node(value)).map_err(|wrong| wrong.within(Part::Key(key.clone().into_owned())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// An enum's variant with a content.
struct Variant<'de, 'a> {
    name: &'de str,
    value: &'de Json<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'de, 'a> {
    type Error = Wrong;
    type Variant = Node<'de, 'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Node<'de, 'a>), Wrong> {
        let name: de::value::StrDeserializer<'_, Wrong> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Node(self.value)))
    }
}

impl<'de> VariantAccess<'de> for Node<'de, '_> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }
}
