//! Errors of a JPEG picture.

use thiserror::Error;

/// The reason why a JPEG picture is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum JpegError {
    #[error("expected the start marker ff d8 at the beginning")]
    NoStart,
    #[error("the data end in the header, before {before}")]
    Header { before: &'static str },
    #[error("segment ff {marker:02x}: expected {expected}, found {found}")]
    Segment { marker: u8, expected: &'static str, found: usize },
    #[error("marker ff {marker:02x}: {found}; expected 8 bits, Huffman codes, baseline or progressive")]
    Unsupported { marker: u8, found: &'static str },
    #[error("{width}×{height} pixels")]
    Empty { width: u32, height: u32 },
    #[error("a Huffman table holds no prefix code")]
    Table,
    #[error("scan {scan}: no {class} Huffman table {slot}")]
    NoTable { scan: usize, class: &'static str, slot: usize },
    #[error("scan {scan}: the data end after {found} of {expected} blocks")]
    Cut { scan: usize, found: u64, expected: u64 },
    #[error("scan {scan}: no Huffman code after {found} of {expected} blocks")]
    Code { scan: usize, found: u64, expected: u64 },
    #[error("scan {scan}: a block has more than 64 coefficients, after {found} of {expected} blocks")]
    Overfull { scan: usize, found: u64, expected: u64 },
    #[error("scan {scan}: expected restart marker {expected} after {blocks} blocks, found {found}")]
    Restart { scan: usize, expected: u8, found: Found, blocks: u64 },
    #[error("scan {scan}: {bytes} bytes more than its {blocks} blocks have")]
    Surplus { scan: usize, bytes: usize, blocks: u64 },
    #[error("scan {scan}: {bytes} bytes follow its data, and no marker")]
    NoMarker { scan: usize, bytes: usize },
    #[error("scan {scan}: its coefficients do not continue those of the scans before")]
    Progression { scan: usize },
    #[error("more than {most} scans")]
    Scans { most: usize },
    #[error("expected {expected} blocks, found {bytes} bytes")]
    TooShort { expected: u64, bytes: usize },
    #[error("component {component} is missing: the picture ends after {scans} scans")]
    Component { component: usize, scans: usize },
    #[error("component {component} lacks coefficients: the picture ends after {scans} scans")]
    Coefficients { component: usize, scans: usize },
    #[error("{0}")]
    Decoder(String),
}

/// The bytes found in place of a restart marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Marker(u8),
    End,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Marker(marker @ 0xd0..=0xd7) => write!(f, "restart marker {}", marker - 0xd0),
            Found::Marker(marker) => write!(f, "marker ff {marker:02x}"),
            Found::End => write!(f, "the end of the data"),
        }
    }
}
