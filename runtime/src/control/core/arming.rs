//! The way to the permission to move.

use firmware_bridge::message::{Ack, Reason};

use super::outbox::Message;
use crate::clock::HostNs;

/// A request to be armed that was not answered is sent again after this long.
const RETRY_NS: u64 = 250_000_000;
/// Requests to be armed, until the controller is given up.
pub(super) const TRIES: u32 = 40;

/// What a loop that is ready does next to be armed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody wants it, or a request is on its way.
    Wait,
    /// Ask the controller.
    Ask,
    /// Give up; the controller's last reason, where it gave one.
    GiveUp(String),
}

/// The controller's answer to a request to be armed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may move.
    Armed,
    /// Not yet, for a reason that passes by itself: asked again a little later.
    Later,
    /// Not yet: a person has to move a joint, or servos are still waking up.
    NotYet,
    /// Never.
    Refused,
}

/// Who wants the arm to move, and how far the controller was asked.
#[derive(Debug, Default)]
pub(super) struct Arming {
    /// A person or the configuration wants it.
    wanted: bool,
    /// It was given in this run.
    given: bool,
    /// The controller latched that it lost the host: this is cleared before arming.
    clear: bool,
    /// Why the controller cannot be armed yet.
    refused: String,
    /// When a request went out, and its sequence where one was sent.
    asked: Option<(Option<u32>, HostNs)>,
    tries: u32,
}

impl Arming {
    /// Arming is wanted, or no longer.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether the controller gave the permission in this run.
    pub(super) fn was_given(&self) -> bool {
        self.given
    }

    /// Whether to clear the latched silence of the host before the next request.
    pub(super) fn clear_first(&mut self, clear: bool) {
        self.clear = clear;
    }

    /// A request counts anew: the loop is ready, or the controller has a pose now, or the clock jumped.
    pub(super) fn ask_at_once(&mut self) {
        self.asked = None;
    }

    /// The loop became ready.
    pub(super) fn begin(&mut self) {
        self.tries = 0;
        self.refused.clear();
        self.asked = None;
    }

    /// The next step of a loop that is ready.
    pub(super) fn step(&mut self, now: HostNs) -> Step {
        let waiting = self.asked.is_some_and(|(_, asked)| now.since(asked) <= RETRY_NS);
        if !self.wanted || waiting {
            return Step::Wait;
        }
        if self.tries == TRIES {
            return Step::GiveUp(std::mem::take(&mut self.refused));
        }
        self.tries += 1;
        Step::Ask
    }

    /// The request to send; none without a pose from the controller, from which to act.
    pub(super) fn request(&mut self, now: HostNs, reported: bool) -> Option<Message> {
        self.asked = Some((None, now));
        reported.then_some(if self.clear { Message::ClearFault } else { Message::Arm })
    }

    /// A request to be armed was sent, with this sequence where the line took it.
    pub(super) fn sent(&mut self, now: HostNs, sequence: Option<u32>) {
        self.asked = Some((sequence, now));
    }

    /// Takes the controller's answer, where it is to the last request.
    pub(super) fn answered(&mut self, ack: &Ack, received: HostNs) -> Option<Answer> {
        self.asked.take_if(|(sequence, _)| *sequence == Some(ack.sequence))?;
        let answer = match ack.reason {
            Reason::Ok => Answer::Armed,
            // It ramps to rest after the hello that ended another session, or its fault is being cleared.
            Reason::Stopping => Answer::Later,
            Reason::Faulted if self.given => Answer::Later,
            Reason::NotMeasured | Reason::OutsideLimits => Answer::NotYet,
            _ => Answer::Refused,
        };
        match answer {
            Answer::Armed => self.given = true,
            Answer::Later | Answer::NotYet => self.asked = Some((None, received)),
            Answer::Refused => {}
        }
        Some(answer)
    }

    /// Keeps why the controller is not armed yet; whether that is news.
    pub(super) fn explain(&mut self, why: &str) -> bool {
        let is_new = self.refused != why;
        if is_new {
            why.clone_into(&mut self.refused);
        }
        is_new
    }

    /// The permission was lost. Whether from now on a person has to request arming.
    pub(super) fn lost(&mut self, rearm: bool) -> bool {
        let ends = self.wanted && !rearm;
        self.wanted &= !ends;
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(sequence: u32, reason: Reason) -> Ack {
        Ack { sequence, kind: 0, reason, first_step: 0, start_us: 0 }
    }

    /// Wanted, and asked for at 1 s with the sequence 7.
    fn asked(given: bool) -> Arming {
        let mut arming = Arming { wanted: true, given, ..Arming::default() };
        assert_eq!(arming.step(HostNs(1_000_000_000)), Step::Ask);
        assert_eq!(arming.request(HostNs(1_000_000_000), true), Some(Message::Arm));
        arming.sent(HostNs(1_000_000_000), Some(7));
        arming
    }

    #[test]
    fn the_answers() {
        for (given, reason, expected) in [
            (false, Reason::Ok, Answer::Armed),
            (false, Reason::Stopping, Answer::Later),
            (false, Reason::NotMeasured, Answer::NotYet),
            (false, Reason::OutsideLimits, Answer::NotYet),
            (false, Reason::Faulted, Answer::Refused),
            (true, Reason::Faulted, Answer::Later),
            (true, Reason::WrongSession, Answer::Refused),
        ] {
            let mut arming = asked(given);
            assert_eq!(arming.answered(&ack(8, reason), HostNs(1_001_000_000)), None, "another message's");
            let asks_again = matches!(expected, Answer::Later | Answer::NotYet);
            assert_eq!(arming.was_given(), given);
            assert_eq!(arming.answered(&ack(7, reason), HostNs(1_001_000_000)), Some(expected), "{given} {reason:?}");
            assert_eq!(arming.was_given(), given || reason == Reason::Ok);
            assert_eq!(arming.answered(&ack(7, reason), HostNs(1_001_000_000)), None, "answered once");
            let at_once = arming.step(HostNs(1_002_000_000));
            assert_eq!(at_once == Step::Wait, asks_again, "{reason:?} is asked again a little later");
        }
    }

    #[test]
    fn a_request_is_repeated_until_the_controller_is_given_up() {
        let mut arming = Arming { wanted: true, ..Arming::default() };
        let mut now = HostNs(0);
        for _ in 0..TRIES {
            assert_eq!(arming.step(now), Step::Ask);
            assert_eq!(arming.request(now, false), None, "there is no pose to act from");
            assert_eq!(arming.step(now.after(RETRY_NS)), Step::Wait);
            now = now.after(RETRY_NS + 1);
        }
        assert!(arming.explain("a joint is outside") && !arming.explain("a joint is outside"), "news once");
        assert_eq!(arming.step(now), Step::GiveUp("a joint is outside".to_owned()));
        arming.begin();
        assert_eq!(arming.step(now), Step::Ask, "it counts anew");
    }

    #[test]
    fn a_controller_that_lost_the_host_is_cleared_first() {
        let mut arming = Arming { wanted: true, ..Arming::default() };
        arming.clear_first(true);
        assert_eq!(arming.request(HostNs(1), true), Some(Message::ClearFault));
        arming.clear_first(false);
        assert_eq!(arming.request(HostNs(2), true), Some(Message::Arm));
    }

    #[test]
    fn whether_a_person_has_to_arm_again() {
        for (wanted, rearm, ends) in [(true, true, false), (true, false, true), (false, false, false)] {
            let mut arming = Arming { wanted, ..Arming::default() };
            assert_eq!(arming.lost(rearm), ends);
            assert_eq!(arming.is_wanted(), wanted && rearm);
        }
    }
}
