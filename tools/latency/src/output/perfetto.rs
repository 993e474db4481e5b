//! A trace for <https://ui.perfetto.dev>: TrackEvents in Perfetto's protobuf, written as events arrive.
//!
//! A trace is a sequence of packets, so it may end after any of them. A full disk ends the trace, not the measurement.

use std::collections::HashMap;
use std::io::{self, Write};

use fathom::telemetry::{Event, Kind, Track, counter, stage};

use crate::collect;

/// Perfetto's numbers of fields, of `protos/perfetto/trace`.
mod field {
    pub(super) const PACKET: u32 = 1;
    pub(super) const PACKET_CLOCK_SNAPSHOT: u32 = 6;
    pub(super) const PACKET_TIMESTAMP: u32 = 8;
    pub(super) const PACKET_SEQUENCE: u32 = 10;
    pub(super) const PACKET_TRACK_EVENT: u32 = 11;
    pub(super) const PACKET_SEQUENCE_FLAGS: u32 = 13;
    pub(super) const PACKET_CLOCK: u32 = 58;
    pub(super) const PACKET_TRACK: u32 = 60;
    pub(super) const SNAPSHOT_CLOCKS: u32 = 1;
    pub(super) const SNAPSHOT_PRIMARY: u32 = 2;
    pub(super) const CLOCK_ID: u32 = 1;
    pub(super) const CLOCK_TIME: u32 = 2;
    pub(super) const TRACK_UUID: u32 = 1;
    pub(super) const TRACK_NAME: u32 = 2;
    pub(super) const TRACK_PROCESS: u32 = 3;
    pub(super) const TRACK_PARENT: u32 = 5;
    pub(super) const TRACK_COUNTER: u32 = 8;
    pub(super) const PROCESS_PID: u32 = 1;
    pub(super) const PROCESS_NAME: u32 = 6;
    pub(super) const COUNTER_UNIT: u32 = 3;
    pub(super) const EVENT_TYPE: u32 = 9;
    pub(super) const EVENT_TRACK: u32 = 11;
    pub(super) const EVENT_CATEGORIES: u32 = 22;
    pub(super) const EVENT_NAME: u32 = 23;
    pub(super) const EVENT_COUNTER: u32 = 30;
    pub(super) const EVENT_FLOWS: u32 = 47;
    pub(super) const EVENT_FLOWS_END: u32 = 48;
}

/// CLOCK_MONOTONIC among Perfetto's clocks.
const MONOTONIC: u64 = 3;
/// This writer among those of a trace.
const SEQUENCE: u64 = 1;
/// The track of the process.
const PROCESS: u64 = 1;
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;
const UNIT_NS: u64 = 1;
const UNIT_COUNT: u64 = 2;

/// Stages connected by an observation's arrows, in this order.
const FLOW: [&str; 6] = [stage::CAPTURE, stage::UPLOAD, stage::GPU_START, stage::READBACK, stage::WRITE, stage::ACK];

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u64) {
        self.varint(u64::from(field) << 3 | wire);
    }

    fn number(&mut self, field: u32, value: u64) -> &mut Message {
        self.key(field, 0);
        self.varint(value);
        self
    }

    fn fixed(&mut self, field: u32, value: u64) -> &mut Message {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Message {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(&mut self, field: u32, value: &Message) -> &mut Message {
        self.bytes(field, &value.0)
    }
}

/// A line of the trace: consecutive slices, or a counter's values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    track: Track,
    /// Part of the track, if it has several.
    part: String,
    /// Overlapping slices get lines of their own.
    lane: usize,
}

/// Writes a trace.
pub(crate) struct Trace<W: Write> {
    to: W,
    /// Complete packets that are not written yet.
    buffer: Vec<u8>,
    /// Bytes of written packets.
    written: u64,
    failed: Option<io::Error>,
    events: u64,
    lines: HashMap<Line, (u64, u64)>,
    next_uuid: u64,
}

/// The end of a trace.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Number of written events.
    pub(crate) events: u64,
    /// Bytes up to the last complete packet.
    pub(crate) bytes: u64,
    /// The error that ended it early.
    pub(crate) error: Option<io::Error>,
}

/// Bytes per write.
const BUFFER: usize = 64 << 10;

impl<W: Write> Trace<W> {
    /// Starts a trace of process `pid` with the title `title`.
    pub(crate) fn begin(to: W, pid: u32, title: &str, now_ns: u64) -> Trace<W> {
        let buffer = Vec::with_capacity(2 * BUFFER);
        let mut trace =
            Trace { to, buffer, written: 0, failed: None, events: 0, lines: HashMap::new(), next_uuid: PROCESS + 1 };
        let mut clock = Message::default();
        clock.number(field::CLOCK_ID, MONOTONIC).number(field::CLOCK_TIME, now_ns);
        let mut snapshot = Message::default();
        snapshot.message(field::SNAPSHOT_CLOCKS, &clock).number(field::SNAPSHOT_PRIMARY, MONOTONIC);
        let mut packet = Message::default();
        // 1: earlier state of the sequence is void.
        packet.message(field::PACKET_CLOCK_SNAPSHOT, &snapshot).number(field::PACKET_SEQUENCE_FLAGS, 1);
        trace.packet(packet);
        let mut process = Message::default();
        process.number(field::PROCESS_PID, pid.into()).bytes(field::PROCESS_NAME, title.as_bytes());
        let mut track = Message::default();
        track.number(field::TRACK_UUID, PROCESS).message(field::TRACK_PROCESS, &process);
        let mut packet = Message::default();
        packet.message(field::PACKET_TRACK, &track);
        trace.packet(packet);
        trace
    }

    /// Adds an event with the name `name`.
    pub(crate) fn event(&mut self, name: &str, event: &Event) {
        if self.failed.is_some() {
            return;
        }
        match event.kind {
            Kind::Span => self.span(name, event),
            Kind::Counter => {
                let unit = if name.contains("error") { UNIT_NS } else { UNIT_COUNT };
                let uuid = self.line(event.track, name, 0, Some(unit), event.begin_ns);
                let mut body = Message::default();
                body.number(field::EVENT_TYPE, COUNTER).number(field::EVENT_TRACK, uuid);
                body.number(field::EVENT_COUNTER, event.value);
                self.track_event(event.begin_ns, &body);
            }
            Kind::Mark => {
                let uuid = self.line(event.track, name, 0, None, event.begin_ns);
                let mut body = Message::default();
                let said =
                    if name == counter::REFUSED { format!("{name}: reason {}", event.value) } else { name.to_owned() };
                body.number(field::EVENT_TYPE, INSTANT).number(field::EVENT_TRACK, uuid);
                body.bytes(field::EVENT_NAME, said.as_bytes());
                self.track_event(event.begin_ns, &body);
            }
        }
        self.events += 1;
    }

    fn span(&mut self, name: &str, event: &Event) {
        let end_ns = event.begin_ns.saturating_add(event.value);
        // The slices of a thread or of the GPU are consecutive; waiting times and whole paths have lines of their own.
        let part = match event.track {
            Track::Path | Track::Control if ![stage::MERGE, stage::WRITE].contains(&name) => name,
            _ => "",
        };
        let mut lane = 0;
        while self
            .lines
            .get(&Line { track: event.track, part: part.to_owned(), lane })
            .is_some_and(|l| l.1 > event.begin_ns)
        {
            lane += 1;
        }
        let uuid = self.line(event.track, part, lane, None, end_ns);
        let mut body = Message::default();
        body.number(field::EVENT_TYPE, SLICE_BEGIN).number(field::EVENT_TRACK, uuid);
        body.bytes(field::EVENT_CATEGORIES, b"fathom").bytes(field::EVENT_NAME, name.as_bytes());
        if event.chunk != 0 && FLOW.contains(&name) {
            let end = FLOW.last() == Some(&name);
            body.fixed(if end { field::EVENT_FLOWS_END } else { field::EVENT_FLOWS }, event.chunk.into());
        }
        self.track_event(event.begin_ns, &body);
        let mut body = Message::default();
        body.number(field::EVENT_TYPE, SLICE_END).number(field::EVENT_TRACK, uuid);
        self.track_event(end_ns, &body);
    }

    /// The line's number; a new line gets a descriptor. The line is occupied until `until_ns`.
    fn line(&mut self, track: Track, part: &str, lane: usize, unit: Option<u64>, until_ns: u64) -> u64 {
        let line = Line { track, part: part.to_owned(), lane };
        if let Some((uuid, taken_ns)) = self.lines.get_mut(&line) {
            *taken_ns = until_ns.max(*taken_ns);
            return *uuid;
        }
        let uuid = self.next_uuid;
        self.next_uuid += 1;
        let mut name = collect::track(track);
        match (track, part) {
            (_, "") => {}
            (Track::Path | Track::Control, part) if unit.is_none() => name = part.trim_start_matches("= ").to_owned(),
            (_, part) => name = part.to_owned(),
        }
        if lane > 0 {
            name += &format!(" ({})", lane + 1);
        }
        let mut body = Message::default();
        body.number(field::TRACK_UUID, uuid)
            .bytes(field::TRACK_NAME, name.as_bytes())
            .number(field::TRACK_PARENT, PROCESS);
        if let Some(unit) = unit {
            let mut counter = Message::default();
            counter.number(field::COUNTER_UNIT, unit);
            body.message(field::TRACK_COUNTER, &counter);
        }
        let mut packet = Message::default();
        packet.message(field::PACKET_TRACK, &body);
        self.packet(packet);
        self.lines.insert(line, (uuid, until_ns));
        uuid
    }

    fn track_event(&mut self, at_ns: u64, body: &Message) {
        let mut packet = Message::default();
        packet.number(field::PACKET_TIMESTAMP, at_ns).number(field::PACKET_CLOCK, MONOTONIC);
        packet.message(field::PACKET_TRACK_EVENT, body);
        self.packet(packet);
    }

    fn packet(&mut self, mut packet: Message) {
        if self.failed.is_some() {
            return;
        }
        packet.number(field::PACKET_SEQUENCE, SEQUENCE);
        let mut whole = Message::default();
        whole.message(field::PACKET, &packet);
        self.buffer.extend_from_slice(&whole.0);
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    fn flush(&mut self) {
        match self.to.write_all(&self.buffer).and_then(|()| self.to.flush()) {
            Ok(()) => self.written += self.buffer.len() as u64,
            Err(error) => self.failed = Some(error),
        }
        self.buffer.clear();
    }

    /// Ends the trace.
    pub(crate) fn end(mut self) -> Ended {
        if self.failed.is_none() {
            self.flush();
        }
        Ended { events: self.events, bytes: self.written, error: self.failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts this many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_the_trace_and_nothing_else() {
        let event = Event { kind: Kind::Span, track: Track::Gpu, name: 0, chunk: 1, begin_ns: 5, value: 6 };
        let mut trace = Trace::begin(Disk(100_000), 1, "fathom", 0);
        (0..10_000).for_each(|_| trace.event("vision tower", &event));
        let Ended { events, bytes, error } = trace.end();
        assert!((100..10_000).contains(&events) && (1000..100_000).contains(&bytes), "{events} events, {bytes} bytes");
        assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn slices_over_each_other_get_lines_of_their_own() {
        let mut trace = Trace::begin(Vec::new(), 1, "fathom", 0);
        for begin_ns in [0, 10, 20, 30] {
            let event = Event { kind: Kind::Span, track: Track::Camera(0), name: 0, chunk: 1, begin_ns, value: 15 };
            trace.event("exposure to dequeue", &event);
        }
        let lanes = trace.lines.keys().map(|l| l.lane);
        assert_eq!(lanes.max(), Some(1), "two of them at a time");
    }
}
