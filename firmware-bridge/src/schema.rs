//! The layouts as text, generated from the declarations at compile time.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "only the compiler runs this, and refuses what goes beyond an end"
)]

use crate::wire::Wire;

/// A field.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// See [`Wire::TEXT`].
    pub(crate) text: &'static str,
    pub(crate) parts: &'static [Part],
}

impl Part {
    pub(crate) const fn of<'a, T: Wire<'a>>(name: &'static str) -> Self {
        Self { name, text: T::TEXT, parts: T::PARTS }
    }
}

/// A message; a header has no type.
pub(crate) struct Line {
    pub(crate) kind: Option<u8>,
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [Part],
    /// Most bytes.
    pub(crate) max: usize,
}

/// Most bytes of a message whose type is at least `kind`.
pub(crate) const fn longest(lines: &[Line], kind: u8) -> usize {
    let (mut max, mut at) = (0, 0);
    while at < lines.len() {
        if let Some(own) = lines[at].kind
            && own >= kind
            && lines[at].max > max
        {
            max = lines[at].max;
        }
        at += 1;
    }
    max
}

/// Text in a fixed buffer.
pub(crate) struct Text {
    bytes: [u8; 4096],
    len: usize,
}

impl Text {
    /// A line for the header and for each message.
    pub(crate) const fn of(header: &Line, messages: &[Line]) -> Self {
        let mut text = Self { bytes: [0; 4096], len: 0 };
        text.line(header);
        let mut at = 0;
        while at < messages.len() {
            text.line(&messages[at]);
            at += 1;
        }
        text
    }

    pub(crate) const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "",
        }
    }

    const fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Appends `text`, replacing `$` by `name` and `#` by `parts`.
    const fn expand(&mut self, text: &str, name: &str, parts: &[Part]) {
        let mut at = 0;
        while at < text.len() {
            match text.as_bytes()[at] {
                b'$' => self.expand(name, "", &[]),
                b'#' => self.parts(parts),
                byte => self.push(byte),
            }
            at += 1;
        }
    }

    const fn line(&mut self, line: &Line) {
        if let Some(kind) = line.kind {
            let digits = b"0123456789abcdef";
            self.push(digits[kind as usize / 16]);
            self.push(digits[kind as usize % 16]);
            self.push(b' ');
        }
        self.expand(line.name, "", &[]);
        self.push(b':');
        if !line.parts.is_empty() {
            self.push(b' ');
            self.parts(line.parts);
        }
        self.push(b'\n');
    }

    const fn parts(&mut self, parts: &[Part]) {
        let (begin, mut at) = (self.len, 0);
        while at < parts.len() {
            let Part { name, text, parts } = &parts[at];
            if !text.is_empty() && self.len > begin {
                self.expand(", ", "", &[]);
            }
            self.expand(text, name, parts);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_declarations_make_this_text() {
        let text = "\
header: version u8, type u8, sequence u32, session u32, time_us u64\n\
01 hello: schema u32\n\
02 chunk: id u32, start_us u64, period_us u32, validity_us u32, interpolation u8, joints u8, steps u16, position f32[steps][joints]\n\
03 heartbeat:\n\
04 arm:\n\
05 disarm:\n\
06 stop:\n\
07 clear_fault:\n\
81 hello_reply: schema u32, identity_len u8, identity u8[identity_len], buffer_depth u16, tick_us u32, telemetry_us u32, deadman_us u32, stop u8, joints u8, [name_len u8, name u8[name_len], unit u8, min f32, max f32, velocity f32, acceleration f32, jump f32, reach f32, limits u8, following_error f32, following_ms u16, stall_error f32, stall_motion f32, stall_current_a f32, stall_ms u16, overload_a f32, overload_ms u16, stop_c u8, release_c u8, min_v f32, max_v f32][joints]\n\
82 state: mode u8, fault u8, flags u8, joints u8, last_sequence u32, chunk u32, consumed u16, steps_left u16, clamps u32, starved u32, crc_errors u32, frame_errors u32, frames_dropped u32, measured f32[joints], commanded f32[joints], if fault [joint u8, cause u8, chunk u32, value f32, low f32, high f32]\n\
83 ack: sequence u32, type u8, reason u8, first_step u16, start_us u64\n\
84 heartbeat_reply: sequence u32, host_time_us u64, received_us u64\n";
        assert_eq!(crate::message::SCHEMA, text);
        assert_eq!([crate::message::MAX_BODY, crate::message::MAX_REPLY_BODY], [4120, 1437]);
    }
}
