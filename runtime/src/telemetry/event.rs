//! Events of a run: spans, counters and marks on CLOCK_MONOTONIC.

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A duration: `value` is in nanoseconds.
    Span,
    /// A counter has the value `value` from this time on.
    Counter,
    /// An instant; the meaning of `value` depends on the mark's name.
    Mark,
}

/// The track of an event: a line of its own in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// The camera of view `n`.
    Camera(u8),
    /// The control thread.
    Control,
    /// The inference thread.
    Inference,
    /// The GPU.
    Gpu,
    /// The serial line, from the write to the acknowledgement.
    Link,
    /// The motor controller, its clock mapped onto the host's.
    Controller,
    /// Whole paths, from one end to the other.
    Path,
}

/// An event. Its name is an index into the ring's table of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its kind.
    pub kind: Kind,
    /// Its track.
    pub track: Track,
    /// Index of its name.
    pub name: u16,
    /// The number of its observation, counted from 1: an image, its inference, and the resulting chunk. 0 for events
    /// without an observation.
    pub chunk: u32,
    /// Its time or its start, in nanoseconds of CLOCK_MONOTONIC.
    pub begin_ns: u64,
    /// The meaning depends on the kind.
    pub value: u64,
}

/// First number of the tracks of cameras.
const CAMERAS: u8 = 16;

impl Track {
    fn number(self) -> u8 {
        match self {
            Track::Control => 0,
            Track::Inference => 1,
            Track::Gpu => 2,
            Track::Link => 3,
            Track::Controller => 4,
            Track::Path => 5,
            Track::Camera(view) => CAMERAS.saturating_add(view),
        }
    }

    fn of(number: u8) -> Option<Track> {
        Some(match number {
            0 => Track::Control,
            1 => Track::Inference,
            2 => Track::Gpu,
            3 => Track::Link,
            4 => Track::Controller,
            5 => Track::Path,
            _ => Track::Camera(number.checked_sub(CAMERAS)?),
        })
    }
}

impl Event {
    /// Its layout in a ring: kind, track, name and chunk in one word, then start and value.
    pub(super) fn words(&self) -> [u64; 3] {
        let kind = match self.kind {
            Kind::Span => 0,
            Kind::Counter => 1,
            Kind::Mark => 2,
        };
        let track = u64::from(self.track.number()) << 8;
        [kind | track | u64::from(self.name) << 16 | u64::from(self.chunk) << 32, self.begin_ns, self.value]
    }

    /// The inverse of [`words`](Self::words); `None` for words that encode no event.
    pub(super) fn of(words: [u64; 3]) -> Option<Event> {
        let [first, begin_ns, value] = words;
        let kind = match first as u8 {
            0 => Kind::Span,
            1 => Kind::Counter,
            2 => Kind::Mark,
            _ => return None,
        };
        let track = Track::of((first >> 8) as u8)?;
        Some(Event { kind, track, name: (first >> 16) as u16, chunk: (first >> 32) as u32, begin_ns, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_from_its_words() {
        let tracks = [Track::Control, Track::Inference, Track::Gpu, Track::Link, Track::Controller, Track::Path];
        let kinds = [Kind::Span, Kind::Counter, Kind::Mark];
        for track in tracks.into_iter().chain([Track::Camera(0), Track::Camera(2)]) {
            for kind in kinds {
                let event = Event { kind, track, name: 0xfedc, chunk: 0xdead_beef, begin_ns: u64::MAX, value: 7 };
                assert_eq!(Event::of(event.words()), Some(event));
            }
        }
        assert_eq!(Event::of([3, 0, 0]), None, "a kind that is not known");
        assert_eq!(Event::of([9 << 8, 0, 0]), None, "a track that is not known");
    }
}
