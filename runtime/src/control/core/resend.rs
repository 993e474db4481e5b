//! Repeated messages: a chunk until the controller has answered, a stop until the controller follows it.

use std::sync::Arc;

use firmware_bridge::message::{Ack, Mode};

use crate::action::Planned;
use crate::clock::{ControllerUs, HostNs, NS_PER_S};
use crate::events::{ChunkTimes, LoopMode};

/// A chunk without an answer is sent again after this long, and after twice its time on the line. Of 6 steps of 6 joints one
/// in eight comes through where every hundredth byte is damaged, and so one of ten thousand takes 0.35 s.
const CHUNK_RETRY_NS: u64 = 5_000_000;
/// A stop that the controller does not follow is sent again after this long.
const STOP_RETRY_NS: u64 = 50_000_000;

/// A chunk on its way to the controller.
#[derive(Clone, Debug)]
pub(super) struct ChunkOnWay {
    pub(super) chunk: Arc<Planned>,
    /// Number of its inference.
    pub(super) number: u32,
    pub(super) times: ChunkTimes,
    /// Whether it was sent.
    is_sent: bool,
    /// Of each time that the line took it.
    sequences: Vec<u32>,
    /// When it was sent last.
    last: HostNs,
}

impl ChunkOnWay {
    pub(super) fn new(chunk: Arc<Planned>, number: u32, times: ChunkTimes) -> ChunkOnWay {
        ChunkOnWay { chunk, number, last: times.began, times, is_sent: false, sequences: Vec::new() }
    }

    /// How often the line took it.
    pub(super) fn tries(&self) -> usize {
        self.sequences.len()
    }
}

/// The next step for a chunk that has no answer.
#[derive(Debug)]
pub(super) enum ChunkStep {
    Wait,
    /// A report of the controller stood for its answer.
    Reported,
    /// Its steps are over.
    Over(ChunkOnWay),
    /// Send it again.
    Send(Arc<Planned>),
}

/// The chunk and the stop that are sent again.
#[derive(Debug)]
pub(super) struct Resend {
    /// Bits per second of the line.
    baud: u32,
    chunk: Option<ChunkOnWay>,
    stopped: HostNs,
}

impl Resend {
    pub(super) fn new(baud: u32) -> Resend {
        Resend { baud: baud.max(1), chunk: None, stopped: HostNs::default() }
    }

    /// A chunk is about to be sent for the first time.
    pub(super) fn begin(&mut self, chunk: ChunkOnWay) {
        self.chunk = Some(chunk);
    }

    /// No answer matters any more.
    pub(super) fn forget(&mut self) {
        self.chunk = None;
    }

    /// The chunk was sent, with this sequence where the line took it. The chunk, if this was the first time.
    pub(super) fn sent(
        &mut self,
        chunk: &Planned,
        limited: HostNs,
        now: HostNs,
        sequence: Option<u32>,
    ) -> Option<&mut ChunkOnWay> {
        let on_way = self.chunk.as_mut().filter(|on_way| on_way.chunk.id == chunk.id)?;
        on_way.sequences.extend(sequence);
        on_way.last = now;
        if std::mem::replace(&mut on_way.is_sent, true) {
            return None;
        }
        (on_way.times.limited, on_way.times.sent) = (limited, now);
        Some(on_way)
    }

    /// Takes the chunk that the controller answers; it goes back by [`begin`](Self::begin) where it is to be sent again.
    pub(super) fn answered(&mut self, ack: &Ack) -> Option<ChunkOnWay> {
        self.chunk.take_if(|on_way| on_way.sequences.contains(&ack.sequence))
    }

    /// When the chunk on its way is to be sent again; `pending` is the one that the planner waits for.
    pub(super) fn due(&self, pending: Option<&Arc<Planned>>) -> Option<HostNs> {
        let bits = pending.map_or(0, |chunk| (chunk.positions.len() as u64 * 4 + 64) * 10);
        let on_line_ns = bits * NS_PER_S / u64::from(self.baud);
        self.chunk.as_ref().map(|on_way| on_way.last.after(CHUNK_RETRY_NS.max(2 * on_line_ns)))
    }

    /// The next step for the chunk on its way at `now`, which is `time` by the controller's clock.
    pub(super) fn step(
        &mut self,
        now: HostNs,
        time: Option<ControllerUs>,
        pending: Option<&Arc<Planned>>,
    ) -> ChunkStep {
        if self.due(pending).is_none_or(|due| now < due) {
            return ChunkStep::Wait;
        }
        let Some(on_way) = self.chunk.take() else { return ChunkStep::Wait };
        if pending.is_none_or(|pending| pending.id != on_way.chunk.id) {
            return ChunkStep::Reported;
        }
        let over = on_way.chunk.start.after(on_way.chunk.validity_us.into());
        if time.is_some_and(|time| time >= over) {
            return ChunkStep::Over(on_way);
        }
        let chunk = Arc::clone(&on_way.chunk);
        self.chunk = Some(on_way);
        ChunkStep::Send(chunk)
    }

    /// A stop is sent.
    pub(super) fn stopped(&mut self, now: HostNs) {
        self.stopped = now;
    }

    /// Whether to repeat the stop: a controller in mode `controller` moves although the loop is in a mode of rest.
    pub(super) fn stop_again(&self, now: HostNs, mode: LoopMode, controller: Option<Mode>) -> bool {
        let resting = matches!(mode, LoopMode::Hold(_) | LoopMode::Ready | LoopMode::Stop | LoopMode::Fault(_));
        resting && controller == Some(Mode::Active) && now.since(self.stopped) >= STOP_RETRY_NS
    }
}

#[cfg(test)]
mod tests {
    use firmware_bridge::message::Reason;

    use super::*;
    use crate::events::{Causes, LoopFault};

    const MS: u64 = 1_000_000;

    /// A chunk of 6 steps of 6 joints that is followed for a second from 1 s on by the controller's clock.
    fn chunk() -> Arc<Planned> {
        let positions = vec![0.0; 36];
        Arc::new(Planned {
            id: 5,
            start: ControllerUs(1_000_000),
            validity_us: 1_000_000,
            positions,
            ..Planned::default()
        })
    }

    /// It was sent with the sequence 9.
    fn on_way(baud: u32, sent: HostNs) -> Resend {
        let mut resend = Resend::new(baud);
        resend.begin(ChunkOnWay::new(chunk(), 3, ChunkTimes::default()));
        assert!(resend.sent(&chunk(), sent, sent, Some(9)).is_some_and(|first| first.number == 3));
        resend
    }

    #[test]
    fn a_chunk_is_due_again_after_its_time_on_the_line() {
        for (baud, expected_ns) in [(1_000_000, 5 * MS), (115_200, 36_111_110)] {
            let due = on_way(baud, HostNs(MS)).due(Some(&chunk()));
            assert_eq!(due, Some(HostNs(MS + expected_ns)), "{baud}");
        }
        assert_eq!(Resend::new(115_200).due(None), None);
    }

    #[test]
    fn the_steps_of_a_chunk_without_an_answer() {
        let (early, late) = (HostNs(4 * MS), HostNs(6 * MS));
        let other = Arc::new(Planned { id: 6, ..Planned::default() });
        let wait: fn(&ChunkStep) -> bool = |step| matches!(step, ChunkStep::Wait);
        let send: fn(&ChunkStep) -> bool = |step| matches!(step, ChunkStep::Send(_));
        let over: fn(&ChunkStep) -> bool = |step| matches!(step, ChunkStep::Over(_));
        let reported: fn(&ChunkStep) -> bool = |step| matches!(step, ChunkStep::Reported);
        for (now, now_us, pending, is) in [
            (early, Some(1_500_000), Some(chunk()), wait),
            (late, Some(1_500_000), Some(chunk()), send),
            (late, None, Some(chunk()), send),
            (late, Some(1_999_999), Some(chunk()), send),
            (late, Some(2_000_000), Some(chunk()), over),
            (late, Some(1_500_000), Some(other), reported),
            (late, Some(1_500_000), None, reported),
        ] {
            let step = on_way(1_000_000, HostNs(0)).step(now, now_us.map(ControllerUs), pending.as_ref());
            assert!(is(&step), "{now:?} {now_us:?}: {step:?}");
        }
    }

    #[test]
    fn any_of_its_sequences_answers_a_chunk() {
        let ack = |sequence| Ack { sequence, kind: 0, reason: Reason::Ok, first_step: 0, start_us: 0 };
        for (sequence, is) in [(8, false), (9, true), (12, true)] {
            let mut resend = on_way(1_000_000, HostNs(0));
            assert!(resend.sent(&chunk(), HostNs(6), HostNs(7), Some(12)).is_none(), "not the first time");
            let found = resend.answered(&ack(sequence));
            assert_eq!(found.as_ref().map(|on_way| (on_way.tries(), on_way.times.sent)), is.then_some((2, HostNs(0))));
            assert_eq!(resend.due(None).is_none(), is, "an answered chunk is not sent again");
        }
    }

    #[test]
    fn a_stop_is_sent_again_while_the_controller_moves() {
        let hold = LoopMode::Hold(Causes { images: true, ..Causes::default() });
        let fault = LoopMode::Fault(LoopFault::Controller);
        for (mode, controller, after_ms, expected) in [
            (hold, Some(Mode::Active), 50, true),
            (hold, Some(Mode::Active), 49, false),
            (hold, Some(Mode::Stopping), 50, false),
            (hold, None, 50, false),
            (LoopMode::Ready, Some(Mode::Active), 50, true),
            (LoopMode::Stop, Some(Mode::Active), 50, true),
            (fault, Some(Mode::Active), 50, true),
            (LoopMode::Active, Some(Mode::Active), 50, false),
            (LoopMode::Warm, Some(Mode::Active), 50, false),
        ] {
            let mut resend = Resend::new(1_000_000);
            resend.stopped(HostNs(MS));
            let again = resend.stop_again(HostNs(MS).after(after_ms * MS), mode, controller);
            assert_eq!(again, expected, "{mode} {controller:?} {after_ms}");
        }
    }
}
