//! The type of a file by its first bytes: downloads often leave another file than the requested one.

use std::fmt;

use super::json::{self, Json};

/// Bytes that decide.
const START: usize = 4096;
/// Longest header that the safetensors format allows.
const MAX_HEADER: u64 = 100_000_000;

/// The type of a file. Its text includes advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No bytes.
    Empty,
    /// Nothing but zeros.
    Zeros,
    /// Git's placeholder of a file of Git LFS.
    LfsPointer {
        /// Size of the file itself.
        bytes: Option<u64>,
    },
    /// Git's placeholder of a file of git-annex.
    AnnexPointer,
    /// HTML.
    WebPage {
        /// Its title.
        title: Option<String>,
    },
    /// XML, such as a storage service answers with.
    Xml {
        /// The message in it.
        message: Option<String>,
    },
    /// JSON with nothing but an error.
    ServerMessage {
        /// The error.
        message: String,
    },
    /// JSON, by its first character.
    Json,
    /// `torch.save`'s file.
    PyTorch,
    /// Python's pickle.
    Pickle,
    /// An archive, or a compressed file.
    Archive {
        /// Its format.
        format: &'static str,
    },
    /// Weights in a format that Fathom does not read.
    Foreign {
        /// The format.
        format: &'static str,
    },
    /// Safetensors.
    Safetensors,
    /// Text in UTF-16.
    Utf16,
    /// Text that is none of the above.
    Text {
        /// Its beginning.
        begin: String,
    },
    /// None of the above.
    Unknown {
        /// Its first bytes, eight at most.
        begin: Vec<u8>,
    },
}

/// Formats that their first bytes identify.
const MAGIC: [(&[u8], Content); 15] = [
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", Content::PyTorch),
    (b"\x1f\x8b", Content::Archive { format: "gzip" }),
    (b"\xfd7zXZ\0", Content::Archive { format: "xz" }),
    (b"\x28\xb5\x2f\xfd", Content::Archive { format: "zstd" }),
    (b"BZh", Content::Archive { format: "bzip2" }),
    (b"7z\xbc\xaf\x27\x1c", Content::Archive { format: "7z" }),
    (b"Rar!\x1a\x07", Content::Archive { format: "RAR" }),
    (b"GGUF", Content::Foreign { format: "GGUF" }),
    (b"tjgg", Content::Foreign { format: "GGML" }),
    (b"\x89HDF\r\n\x1a\n", Content::Foreign { format: "HDF5" }),
    (b"\x93NUMPY", Content::Foreign { format: "NumPy" }),
    (b"\xff\xfe", Content::Utf16),
    (b"\xfe\xff", Content::Utf16),
    (b"/annex/objects/", Content::AnnexPointer),
    (b"../.git/annex/objects/", Content::AnnexPointer),
];

impl Content {
    /// The type of a file with these bytes, by the first 4096.
    pub fn of(bytes: &[u8]) -> Content {
        let start = bytes.get(..START).unwrap_or(bytes);
        if bytes.is_empty() {
            return Content::Empty;
        }
        if start.len() >= 8 && start.iter().all(|b| *b == 0) {
            return Content::Zeros;
        }
        if is_header(start) {
            return Content::Safetensors;
        }
        if let Some((_, content)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
            return content.clone();
        }
        if start.starts_with(b"PK\x03\x04") {
            let pickle = start.windows(9).any(|w| w == b"/data.pkl") || start.windows(8).any(|w| w == b"/version");
            return if pickle { Content::PyTorch } else { Content::Archive { format: "zip" } };
        }
        if matches!(start, [0x80, 2..=5, ..]) {
            return Content::Pickle;
        }
        if start.get(257..262) == Some(b"ustar") {
            return Content::Archive { format: "tar" };
        }
        if start.get(4..8) == Some(b"TFL3") {
            return Content::Foreign { format: "TensorFlow Lite" };
        }
        Content::of_text(start).unwrap_or_else(|| Content::Unknown { begin: start.iter().take(8).copied().collect() })
    }

    fn of_text(start: &[u8]) -> Option<Content> {
        let start = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
        let text = match std::str::from_utf8(start) {
            Ok(text) => text,
            // The last character may be cut off.
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(start.get(..error.valid_up_to())?).unwrap_or_default()
            }
            Err(_) => return None,
        };
        if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return None;
        }
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let between = |from: &str, to: &str| {
            let (_, rest) = lower.split_once(from)?;
            let begin = lower.len() - rest.len();
            let inside = text.get(begin..begin + rest.find(to)?)?.split_whitespace().collect::<Vec<_>>().join(" ");
            Some(shortened(&inside, 80))
        };
        Some(if text.starts_with("version https://") && lower.contains("\noid sha256:") {
            let size = text.lines().find_map(|line| line.strip_prefix("size "));
            Content::LfsPointer { bytes: size.and_then(|size| size.trim().parse().ok()) }
        } else if text.starts_with(['{', '[']) {
            Content::Json
        } else if lower.contains("<html") || lower.starts_with("<!doctype html") || lower.starts_with("<head") {
            Content::WebPage { title: between("<title>", "</title>") }
        } else if lower.starts_with("<?xml") || lower.starts_with("<error>") {
            Content::Xml { message: between("<message>", "</message>") }
        } else {
            Content::Text { begin: shortened(text, 80) }
        })
    }

    /// Whether it is nothing that a person or a program wrote as JSON.
    pub(crate) fn is_no_text(&self) -> bool {
        !matches!(self, Content::Json | Content::Text { .. } | Content::Unknown { .. })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = "download it again";
        match self {
            Content::Empty => write!(f, "an empty file: {again}"),
            Content::Zeros => write!(f, "a file of zeros, whose download never began: {again}"),
            Content::LfsPointer { bytes } => {
                let size = bytes.map(|bytes| format!(" to a file of {bytes} bytes")).unwrap_or_default();
                write!(f, "a Git LFS pointer{size}: run `git lfs pull` in the repository that it lies in")
            }
            Content::AnnexPointer => write!(f, "a git-annex pointer: run `git annex get` in the repository"),
            Content::WebPage { title } => {
                let title = title.as_ref().map(|title| format!(" with the title {title:?}")).unwrap_or_default();
                write!(
                    f,
                    "a web page{title}: download the file itself (on the Hugging Face Hub its address has `resolve` where \
                     the page has `blob`, and a gated model asks for a login)"
                )
            }
            Content::Xml { message } => {
                let message = message.as_ref().map(|message| format!(" with the message {message:?}"));
                write!(f, "XML{}: {again}", message.unwrap_or_default())
            }
            Content::ServerMessage { message } => {
                write!(f, "the error message of a server, {message:?}: {again}, with a login where it asks for one")
            }
            Content::Json => write!(f, "JSON"),
            Content::PyTorch => {
                write!(f, "PyTorch's own format, which can hold programs: save its state dictionary as safetensors")
            }
            Content::Pickle => {
                write!(f, "a Python pickle, which can hold programs: save its state dictionary as safetensors")
            }
            Content::Archive { format } => write!(f, "a {format} file: unpack it"),
            Content::Foreign { format } => write!(f, "{format}, which Fathom does not read: export safetensors"),
            Content::Safetensors => write!(f, "safetensors"),
            Content::Utf16 => write!(f, "text in UTF-16: save it in UTF-8"),
            Content::Text { begin } => write!(f, "the text {begin:?}"),
            Content::Unknown { begin } => {
                let hex: Vec<String> = begin.iter().map(|b| format!("{b:02x}")).collect();
                write!(f, "an unknown format that begins with the bytes {}", hex.join(" "))
            }
        }
    }
}

/// Whether bytes begin as a safetensors file does: eight bytes of length, and a JSON object of that length.
fn is_header(start: &[u8]) -> bool {
    let Some((length, rest)) = start.split_first_chunk() else { return false };
    (2..=MAX_HEADER).contains(&u64::from_le_bytes(*length)) && rest.first().is_none_or(|b| *b == b'{')
}

/// How a file is not the safetensors file that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSafetensors {
    /// It is another kind of file.
    #[error("{0}")]
    Content(Content),
    /// It ends too early, or too late.
    #[error("its header tells of {}{expected} bytes, and it has {found}: download it again", if *least { "at least " } else { "" })]
    Size {
        /// As its header says.
        expected: u64,
        /// Whether the header itself is cut off.
        least: bool,
        /// As it is.
        found: u64,
    },
    /// Its header makes no sense, or tensors do not fit it.
    #[error("{0}")]
    Header(String),
}

impl NotSafetensors {
    /// Of a file with these bytes, which the reader refused with `reason`.
    pub(crate) fn of(bytes: &[u8], reason: &safetensors::SafeTensorError) -> NotSafetensors {
        let found = bytes.len() as u64;
        let content = Content::of(bytes);
        let header = || NotSafetensors::Header(reason.to_string());
        match (content, bytes.split_first_chunk()) {
            (Content::Safetensors, Some((length, rest))) => {
                let end = u64::from_le_bytes(*length).saturating_add(8);
                if found < end {
                    return NotSafetensors::Size { expected: end, least: true, found };
                }
                match data_len(rest.get(..(end - 8) as usize).unwrap_or_default()) {
                    Some(data) if end.saturating_add(data) != found => {
                        NotSafetensors::Size { expected: end.saturating_add(data), least: false, found }
                    }
                    _ => header(),
                }
            }
            (content @ Content::Unknown { .. }, Some(_)) => {
                NotSafetensors::Header(format!("{reason}; it is {content}"))
            }
            (content, _) => NotSafetensors::Content(content),
        }
    }
}

/// The end of the last tensor, as a header says.
fn data_len(header: &[u8]) -> Option<u64> {
    let tree = json::from_bytes(header).ok()?;
    let Json::Object(tensors) = &tree else { return None };
    let end = |(_, tensor): &(_, Json<'_>)| match tensor.get("data_offsets")? {
        Json::Array(offsets) => match offsets.as_slice() {
            [_, Json::Integer(end)] => u64::try_from(*end).ok(),
            _ => None,
        },
        _ => None,
    };
    tensors.iter().filter_map(end).max()
}

/// The message of JSON that has nothing but an error.
pub(crate) fn server_message(tree: &Json<'_>) -> Option<String> {
    const KEYS: [&str; 14] = [
        "code",
        "detail",
        "documentation_url",
        "error",
        "error_code",
        "error_description",
        "errors",
        "message",
        "path",
        "requestId",
        "request_id",
        "status",
        "statusCode",
        "timestamp",
    ];
    let Json::Object(entries) = tree else { return None };
    if !entries.iter().all(|(key, _)| KEYS.contains(&key.as_ref())) {
        return None;
    }
    let text = |key: &str| {
        let value = tree.get(key)?;
        value.as_str().or_else(|| value.get("message")?.as_str()).map(|text| shortened(text, 80))
    };
    ["error", "message", "detail", "error_description"].into_iter().find_map(text)
}

/// A text of at most `most` characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
