//! An image as `foxglove.RawImage`, and back.

use super::protobuf::{Value, Writer, fields};
use crate::camera::{Image, PixelFormat};
use crate::clock::NS_PER_S;

/// The message; `time_ns` of CLOCK_REALTIME.
pub(super) fn encode(image: &Image, view: &str, time_ns: u64) -> Vec<u8> {
    let encoding: &[u8] = match image.format {
        PixelFormat::Rgb24 | PixelFormat::Mjpeg => b"rgb8",
        PixelFormat::Yuyv => b"yuyv",
        PixelFormat::Nv12 => b"nv12",
    };
    let mut message = Writer::default();
    message.message(1, |w| {
        w.number(1, time_ns / NS_PER_S).number(2, time_ns % NS_PER_S);
    });
    message.fixed32(2, image.width).fixed32(3, image.height).bytes(4, encoding).fixed32(5, image.stride);
    message.bytes(6, &image.data).bytes(7, view.as_bytes());
    message.into_bytes()
}

/// The pixels of a message; `None` for an image that Fathom does not write.
pub(super) fn decode(bytes: &[u8]) -> Option<Image> {
    let mut image = Image::default();
    let mut encoding: &[u8] = b"";
    for (field, value) in fields(bytes)? {
        match (field, value) {
            (2, Value::Number(width)) => image.width = u32::try_from(width).ok()?,
            (3, Value::Number(height)) => image.height = u32::try_from(height).ok()?,
            (4, Value::Bytes(name)) => encoding = name,
            (5, Value::Number(stride)) => image.stride = u32::try_from(stride).ok()?,
            (6, Value::Bytes(data)) => image.data = data.to_vec(),
            _ => {}
        }
    }
    image.format = match encoding {
        b"rgb8" => PixelFormat::Rgb24,
        b"yuyv" => PixelFormat::Yuyv,
        b"nv12" => PixelFormat::Nv12,
        _ => return None,
    };
    image.check("recording").ok().map(|()| image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_comes_back() {
        for format in [PixelFormat::Rgb24, PixelFormat::Yuyv, PixelFormat::Nv12] {
            let mut image = Image::default();
            image.reshape(format, 6, 4);
            image.data.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
            let bytes = encode(&image, "base", 1_700_000_000_123_456_789);
            let back = decode(&bytes).unwrap();
            let form = |i: &Image| (i.format, i.width, i.height, i.stride, i.data.clone());
            assert_eq!(form(&back), form(&image));
            assert!(decode(&bytes[..bytes.len() / 2]).is_none(), "half an image is none");
        }
    }
}
