//! What is told of a run while it goes on: spans, counters and marks on CLOCK_MONOTONIC.

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something took time: `value` is its duration in nanoseconds.
    Span,
    /// Something has the value `value` from here on.
    Counter,
    /// Something happened; `value` says more of it, by the mark's name.
    Mark,
}

/// Where it happened: a line of its own in a trace.
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

/// One thing that happened. Its name is a number that the ring's table of names explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// Where it happened.
    pub track: Track,
    /// Number of its name.
    pub name: u16,
    /// The observation that it belongs to, counted from 1: an image, what became of it, and the chunk that it led to. 0
    /// for what belongs to none.
    pub chunk: u32,
    /// When it happened or began, in nanoseconds of CLOCK_MONOTONIC.
    pub begin_ns: u64,
    /// By its kind.
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
    /// As it lies in a ring: kind, track, name and chunk in one word, then begin and value.
    pub(super) fn words(&self) -> [u64; 3] {
        let kind = match self.kind {
            Kind::Span => 0,
            Kind::Counter => 1,
            Kind::Mark => 2,
        };
        let track = u64::from(self.track.number()) << 8;
        [kind | track | u64::from(self.name) << 16 | u64::from(self.chunk) << 32, self.begin_ns, self.value]
    }

    /// What [`words`](Self::words) made; `None` for words that no event makes.
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
