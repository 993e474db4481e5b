//! A request: msgpack to images, state and task.

use fathom::camera::{Image, PixelFormat};
use rmpv::ValueRef;
use rmpv::decode::read_value_ref_with_max_depth;

use crate::array::{Array, floats, get, text};
use crate::keys::Keys;

/// Maps in maps.
const DEPTH: usize = 16;
/// Longest side of an image in pixels.
const SIDE: usize = 8192;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// A chunk of actions for an observation.
    Infer(Box<Observed>),
    /// RoboArena's `endpoint: reset`.
    Reset,
}

/// An observation.
#[derive(Debug)]
pub(crate) struct Observed {
    /// In the order of the policy's views.
    pub(crate) images: Vec<(String, Image)>,
    pub(crate) state: Vec<f32>,
    pub(crate) prompt: String,
}

/// A request that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Not msgpack.
    #[error("expected msgpack, found {reason}")]
    Msgpack { reason: String },
    /// Not a map.
    #[error("expected a map, found another value")]
    NoMap,
    /// An entry is missing.
    #[error("expected {key:?}, found {found}")]
    Missing { key: String, found: String },
    /// An entry is not what it should be.
    #[error("{key}: {reason}")]
    Entry { key: String, reason: String },
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    /// [`RequestError`], which names the entry.
    pub(crate) fn read(bytes: &[u8], keys: &Keys) -> Result<Request, RequestError> {
        let mut rest = bytes;
        let value = read_value_ref_with_max_depth(&mut rest, DEPTH)
            .map_err(|error| RequestError::Msgpack { reason: error.to_string() })?;
        if !rest.is_empty() {
            return Err(RequestError::Msgpack { reason: format!("{} bytes behind the value", rest.len()) });
        }
        let ValueRef::Map(map) = value else { return Err(RequestError::NoMap) };
        match get(&map, "endpoint").and_then(text).as_deref() {
            Some("reset") => return Ok(Request::Reset),
            Some("infer") | None => {}
            Some(other) => {
                let reason = format!("expected infer or reset, found {other:?}");
                return Err(RequestError::Entry { key: "endpoint".to_owned(), reason });
            }
        }
        let entry = |key: &str| {
            find(&map, key).ok_or_else(|| RequestError::Missing { key: key.to_owned(), found: names(&map) })
        };
        let wrong = |key: &str, reason: String| RequestError::Entry { key: key.to_owned(), reason };
        let mut images = Vec::new();
        for (view, key) in &keys.views {
            images.push((view.clone(), image(entry(key)?).map_err(|reason| wrong(key, reason))?));
        }
        let mut state = Vec::new();
        for key in &keys.state {
            let values = floats(entry(key)?).map_err(|reason| wrong(key, reason))?;
            state.extend(values.into_iter().map(|value| value as f32));
        }
        let prompt = text(entry(&keys.prompt)?).ok_or_else(|| wrong(&keys.prompt, "expected text".to_owned()))?;
        Ok(Request::Infer(Box::new(Observed { images, state, prompt })))
    }
}

/// The entry of a key: a slash is part of it, or leads into a map.
fn find<'a, 'v>(map: &'a [(ValueRef<'v>, ValueRef<'v>)], key: &str) -> Option<&'a ValueRef<'v>> {
    get(map, key).or_else(|| {
        let (first, rest) = key.split_once('/')?;
        match get(map, first)? {
            ValueRef::Map(inner) => find(inner, rest),
            _ => None,
        }
    })
}

/// The keys that are there.
fn names(map: &[(ValueRef<'_>, ValueRef<'_>)]) -> String {
    let mut names: Vec<String> = map.iter().filter_map(|(key, _)| text(key)).take(20).collect();
    names.sort();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// A `u8` image, (height, width, 3) or (3, height, width); of floats, 255 times them, as openpi's `_parse_image` does.
fn image(value: &ValueRef<'_>) -> Result<Image, String> {
    let array = Array::of(value)?;
    let (height, width, channels_first) = match array.shape[..] {
        [3, height, width] => (height, width, true),
        [height, width, 3] => (height, width, false),
        _ => return Err(format!("expected (height, width, 3) or (3, height, width), found {:?}", array.shape)),
    };
    if height == 0 || width == 0 || height > SIDE || width > SIDE {
        return Err(format!("expected sides of 1 to {SIDE} pixels, found {:?}", array.shape));
    }
    let bytes: Vec<u8> = match array.numbers {
        crate::array::Numbers::U1 => array.data.to_vec(),
        // Truncates, as numpy's astype does.
        numbers if numbers.is_float() => array.values().map(|value| (value * 255.0) as u8).collect(),
        numbers => return Err(format!("expected u8 or floats, found {numbers:?}")),
    };
    let mut image = Image::default();
    image.reshape(PixelFormat::Rgb24, width as u32, height as u32);
    match channels_first {
        false => image.data.copy_from_slice(&bytes),
        true => {
            let plane = height * width;
            for (index, pixel) in image.data.chunks_exact_mut(3).enumerate() {
                for (channel, byte) in pixel.iter_mut().enumerate() {
                    *byte = bytes.get(channel * plane + index).copied().unwrap_or_default();
                }
            }
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;
    use crate::array::value_of;
    use crate::keys::Preset;

    fn keys() -> Keys {
        Keys::new(Preset::Droid, &["base".to_owned(), "wrist".to_owned()], &[], &[], None).expect("keys of two views")
    }

    /// DROID's request, whose images lie in a nested map.
    fn valid() -> Vec<u8> {
        let image = || value_of((0..4 * 3 * 3).map(|i| f64::from(i) / 36.0), &[4, 3, 3]);
        let entry = |key: &str, value: Value| (Value::from(key), value);
        let inner = Value::Map(vec![
            entry("exterior_image_1_left", image()),
            entry("wrist_image_left", image()),
            entry("joint_position", value_of([0.5; 7].into_iter(), &[7])),
            entry("gripper_position", Value::from(0.25)),
        ]);
        let request =
            Value::Map(vec![entry("observation", inner), entry("prompt", Value::Binary(b"tidy up".to_vec()))]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &request).expect("bytes");
        bytes
    }

    #[test]
    fn droids_request_is_read() {
        let Ok(Request::Infer(observed)) = Request::read(&valid(), &keys()) else { panic!("expected an observation") };
        assert_eq!(observed.state, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25], "joints, then the gripper");
        assert_eq!(observed.prompt, "tidy up");
        let (view, image) = &observed.images[0];
        assert_eq!((view.as_str(), image.width, image.height), ("base", 3, 4));
        assert_eq!(image.data[1], 7, "255 / 36, truncated as numpy does");
    }

    #[test]
    fn lengths_that_a_message_does_not_have_cost_nothing() {
        // Lists, maps, bytes and text of 2³² - 1 entries, and lists in lists.
        for first in [0xdd, 0xdf, 0xc6, 0xdb] {
            assert!(Request::read(&[first, 0xff, 0xff, 0xff, 0xff], &keys()).is_err());
        }
        assert!(Request::read(&[0x91; 100_000], &keys()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Only that it returns.
            let _ = Request::read(&bytes, &keys());
        }

        #[test]
        fn no_damage_breaks_the_reader(place in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
            let mut bytes = valid();
            let at = place.index(bytes.len());
            bytes[at] = byte;
            let _ = Request::read(&bytes, &keys());
            let _ = Request::read(&bytes[..end.index(bytes.len())], &keys());
        }
    }
}
