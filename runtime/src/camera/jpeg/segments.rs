//! The segments of a JPEG picture.

use super::JpegError;
use super::bits::after_fill_bytes;
use super::frame::{Frame, Tables};
use super::scan::{ScanHeader, walk};
use crate::camera::orientation::Metadata;

/// Start of image followed by an `AVI1` segment, which makes the decoder use the Huffman tables of JPEG's annex K.3 for
/// tables that the picture lacks.
const START_WITH_DEFAULT_TABLES: [u8; 20] =
    [0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, b'A', b'V', b'I', b'1', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const END: [u8; 2] = [0xff, 0xd9];
/// Limit on the scans of a picture; libjpeg's progressive ones have 10.
const MOST_SCANS: usize = 100;

/// The colour space of the components, decided as libjpeg does.
#[derive(Default)]
struct Colour {
    jfif: bool,
    /// The transform of an Adobe segment.
    adobe: Option<u8>,
}

/// Reads a picture up to the scan that completes it, and writes the cleaned form to `clean`: the segments that a
/// decoder needs in order, then the data.
///
/// # Errors
/// A [`JpegError`] for an incomplete or unsupported picture.
pub(super) fn read_segments(
    data: &[u8],
    mut metadata: Option<&mut Metadata>,
    clean: &mut Vec<u8>,
) -> Result<Frame, JpegError> {
    if !data.starts_with(&[0xff, 0xd8]) {
        return Err(JpegError::NoStart);
    }
    clean.extend(START_WITH_DEFAULT_TABLES);
    let mut tables = Tables::default();
    let mut colour = Colour::default();
    let mut frame: Option<Frame> = None;
    let (mut interval, mut scans, mut at) = (0, 0, 2);
    while let Some((marker, after)) = next_marker(data, at) {
        at = after;
        if marker == 0xd9 {
            break;
        }
        // Restart markers and TEM have no content.
        if matches!(marker, 0x01 | 0xd0..=0xd7) {
            continue;
        }
        let Some(body) = body(data, at, marker)? else { break };
        at += 2 + body.len();
        match marker {
            0xc0..=0xc2 if frame.is_none() => frame = Some(Frame::read(marker, body, data.len())?),
            0xc0..=0xc2 | 0xd8 => return Err(JpegError::Unsupported { marker, found: "a second picture" }),
            0xc4 => {
                tables.define(body)?;
                push(clean, marker, body);
            }
            0xdb => push(clean, marker, body),
            0xdd => match body {
                [high, low] => interval = u16::from_be_bytes([*high, *low]),
                _ => return Err(JpegError::Segment { marker, expected: "two bytes", found: body.len() }),
            },
            0xda => {
                let frame = frame.as_mut().ok_or(JpegError::Header { before: "a frame header" })?;
                scans += 1;
                if scans > MOST_SCANS {
                    return Err(JpegError::Scans { most: MOST_SCANS });
                }
                let header = frame.scan(body, scans)?;
                frame.bring(&header)?;
                tables.complete(frame, &header);
                if scans == 1 {
                    push_frame(clean, frame, &colour);
                }
                if interval > 0 || frame.restart_interval > 0 {
                    push(clean, 0xdd, &interval.to_be_bytes());
                }
                frame.restart_interval = interval;
                push_scan(clean, frame, &colour, &header);
                at = walk(data, at, frame, &tables, &header, clean)?;
                if frame.is_whole() {
                    break;
                }
            }
            0xe0 => colour.jfif |= body.starts_with(b"JFIF\0"),
            0xe1 if scans == 0 => {
                if let Some(metadata) = &mut metadata {
                    metadata.add_app1(body);
                }
            }
            0xee if body.starts_with(b"Adobe") => colour.adobe = body.get(11).copied().or(colour.adobe),
            0xc3 | 0xc5..=0xcb | 0xcd..=0xcf => {
                return Err(JpegError::Unsupported { marker, found: "a lossless, hierarchical or arithmetic picture" });
            }
            _ => {}
        }
    }
    let frame = frame.ok_or(JpegError::Header { before: "a frame header" })?;
    if scans == 0 {
        return Err(JpegError::Header { before: "a scan" });
    }
    frame.missing(scans)?;
    clean.extend(END);
    Ok(frame)
}

/// The next marker from `at` on and its end; skips bytes before it, as libjpeg does.
fn next_marker(data: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += data.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        at = after_fill_bytes(data, at);
        let marker = *data.get(at)?;
        at += 1;
        if marker != 0 {
            return Some((marker, at));
        }
    }
}

/// The body of the segment whose length is at `at`; `None` if the data end before.
fn body(data: &[u8], at: usize, marker: u8) -> Result<Option<&[u8]>, JpegError> {
    let Some([high, low, rest @ ..]) = data.get(at..) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    match length.checked_sub(2) {
        Some(length) => Ok(rest.get(..length)),
        None => Err(JpegError::Segment { marker, expected: "a length of at least 2", found: length }),
    }
}

fn push(clean: &mut Vec<u8>, marker: u8, body: &[u8]) {
    let length = u16::try_from(body.len() + 2).unwrap_or(u16::MAX);
    clean.extend([0xff, marker]);
    clean.extend(length.to_be_bytes());
    clean.extend(body);
}

/// The component name from which the decoder infers the colour space.
fn name(frame: &Frame, colour: &Colour, index: usize) -> u8 {
    let ids = frame.components.iter().map(|component| component.id);
    let rgb = frame.components.len() == 3
        && !colour.jfif
        && match colour.adobe {
            Some(transform) => transform == 0,
            None => ids.eq(*b"RGB"),
        };
    match index {
        0..=2 if rgb => b"RGB".get(index).copied().unwrap_or_default(),
        _ => index as u8 + 1,
    }
}

fn push_frame(clean: &mut Vec<u8>, frame: &Frame, colour: &Colour) {
    if frame.components.len() == 4 {
        let transform = match colour.adobe {
            None | Some(0) => 0,
            Some(_) => 2,
        };
        push(clean, 0xee, &[b'A', b'd', b'o', b'b', b'e', 0, 100, 0, 0, 0, 0, transform]);
    }
    let [h1, h0] = (frame.height as u16).to_be_bytes();
    let [w1, w0] = (frame.width as u16).to_be_bytes();
    let mut body = vec![8, h1, h0, w1, w0, frame.components.len() as u8];
    for (index, c) in frame.components.iter().enumerate() {
        body.extend([name(frame, colour, index), (c.across << 4 | c.down) as u8, c.quantisation]);
    }
    push(clean, if frame.progressive { 0xc2 } else { 0xc0 }, &body);
}

fn push_scan(clean: &mut Vec<u8>, frame: &Frame, colour: &Colour, header: &ScanHeader) {
    let mut body = vec![header.count as u8];
    for (index, c) in header.components().iter().zip(frame.of(header)) {
        body.extend([name(frame, colour, *index), (c.dc << 4 | c.ac) as u8]);
    }
    body.extend([header.band.0 as u8, header.band.1 as u8, header.bits.0 << 4 | header.bits.1]);
    push(clean, 0xda, &body);
}
