//! Tells a fault of the product from a busy machine.
//!
//! A check with a time bound fails for two reasons: the product is late, or other work held the processors. This crate
//! measures the second. [`Meter`] samples two numbers from `/proc` while a check runs: the time that the threads of the
//! process spent on run queues, and the processor time that other processes took. A process is *denied* what is in both:
//! its threads waited, and somebody else ran. A process whose threads only wait for each other is denied nothing, and
//! neither is one beside others on an idle processor.
//!
//! [`judge`] then looks at each failure's own window. A failure in a window without denial is a failure of the product,
//! however busy the rest of the run was. A failure in a window with denial is *not judged*: neither a failure of the
//! product nor a pass. Programs end with [`NOT_JUDGED`] for it, and tests use [`timed!`].

mod alone;
mod read;

use std::fmt;
use std::time::{Duration, Instant};

pub use alone::ran_alone;
pub use read::{Meter, Processes, Readings};

/// Exit status of a check that was not judged because the machine was busy. 0 is a pass, 1 a failure.
pub const NOT_JUDGED: u8 = 98;
/// From this share of one processor on, a window is busy.
pub const BUSY_SHARE: f64 = 0.1;
/// A window is widened to this length, into the past: the kernel counts idle time in hundredths of a second.
pub const SHORTEST: Duration = Duration::from_millis(300);

/// Totals since some start, read at one time. Only differences mean anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time that the threads of the measured processes waited for a processor, summed over threads.
    pub waited: Duration,
    /// Processor time that the measured processes took.
    pub own: Duration,
    /// Processor time that all processes took, the measured ones included.
    pub busy: Duration,
    /// Time that a hypervisor gave to others while a processor of this machine had work.
    pub stolen: Duration,
    /// Time for which a control group's quota kept the measured processes from running.
    pub throttled: Duration,
}

impl Totals {
    /// The processor time that others denied to the measured processes between an earlier reading and this one: what their
    /// threads waited, but no more than others took (or a quota withheld), and their part of the stolen time.
    pub fn denied_since(&self, earlier: &Totals) -> Duration {
        let waited = self.waited.saturating_sub(earlier.waited);
        let own = self.own.saturating_sub(earlier.own);
        let busy = self.busy.saturating_sub(earlier.busy);
        let throttled = self.throttled.saturating_sub(earlier.throttled);
        let stolen = self.stolen.saturating_sub(earlier.stolen);
        let others = busy.saturating_sub(own);
        let share = if busy.is_zero() { 0.0 } else { (own.as_secs_f64() / busy.as_secs_f64()).min(1.0) };
        waited.min(others + throttled) + stolen.mul_f64(share)
    }
}

/// What others denied in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Denial {
    /// Processor time.
    pub denied: Duration,
    /// Length of the samples that cover the window.
    pub span: Duration,
}

impl Denial {
    /// Whether this is enough to be the cause of a failure in the window: [`BUSY_SHARE`].
    pub fn is_busy(&self) -> bool {
        !self.span.is_zero() && self.denied.as_secs_f64() >= BUSY_SHARE * self.span.as_secs_f64()
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (denied, span) = (self.denied.as_secs_f64(), self.span.as_secs_f64());
        write!(f, "other work took {denied:.2} s of processor time from it in {span:.2} s")
    }
}

/// Readings in the order of their times.
#[derive(Debug, Clone, Default)]
pub struct History(Vec<(Instant, Totals)>);

impl History {
    /// Adds a reading; one that is not later than the last is left out.
    pub fn push(&mut self, at: Instant, totals: Totals) {
        if self.0.last().is_none_or(|(last, _)| at > *last) {
            self.0.push((at, totals));
        }
    }

    /// What was denied between two times, by the samples that cover them; nothing where there are none. A window that is
    /// shorter than [`SHORTEST`] is widened into the past.
    pub fn between(&self, from: Instant, to: Instant) -> Denial {
        let earliest = to.checked_sub(SHORTEST).unwrap_or(from);
        let from = from.min(earliest);
        let begin = self.0.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        let end = self.0.partition_point(|(at, _)| *at < to).min(self.0.len().saturating_sub(1));
        match (self.0.get(begin), self.0.get(end)) {
            (Some((first, earlier)), Some((last, later))) if last > first => {
                Denial { denied: later.denied_since(earlier), span: *last - *first }
            }
            _ => Denial::default(),
        }
    }
}

/// Something that a check found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub what: String,
    /// When the product would have had to run to be in time; `None` where no lack of processor time explains it.
    pub window: Option<(Instant, Instant)>,
}

impl Failure {
    /// A failure that no busy machine explains.
    pub fn always(what: impl Into<String>) -> Self {
        Self { what: what.into(), window: None }
    }

    /// A failure that lack of processor time between two times may explain.
    pub fn within(from: Instant, to: Instant, what: impl Into<String>) -> Self {
        Self { what: what.into(), window: Some((from, to)) }
    }
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was wrong, however busy the machine.
    Passed,
    /// The product failed: these failures lie in windows in which nothing was denied.
    Failed(Vec<String>),
    /// All failures lie in windows in which other work held the processors.
    NotJudged(Vec<String>),
}

impl Verdict {
    /// The exit status of a program whose check this is.
    pub fn status(&self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Failed(_) => 1,
            Verdict::NotJudged(_) => NOT_JUDGED,
        }
    }

    /// Of two checks: one failure fails both, and both have to be judged for a pass.
    pub fn and(self, other: Verdict) -> Verdict {
        let join = |mut all: Vec<String>, more: Vec<String>| {
            all.extend(more);
            all
        };
        match (self, other) {
            (Verdict::Failed(a), Verdict::Failed(b)) => Verdict::Failed(join(a, b)),
            (Verdict::Failed(why), _) | (_, Verdict::Failed(why)) => Verdict::Failed(why),
            (Verdict::NotJudged(a), Verdict::NotJudged(b)) => Verdict::NotJudged(join(a, b)),
            (Verdict::NotJudged(why), _) | (_, Verdict::NotJudged(why)) => Verdict::NotJudged(why),
            (Verdict::Passed, Verdict::Passed) => Verdict::Passed,
        }
    }
}

/// Judges each failure by what was denied in its own window.
pub fn judge(failures: &[Failure], history: &History) -> Verdict {
    judge_by(failures, |from, to| history.between(from, to))
}

/// As [`judge`], with a measure of windows.
pub fn judge_by(failures: &[Failure], denied: impl Fn(Instant, Instant) -> Denial) -> Verdict {
    let (mut failed, mut not_judged) = (Vec::new(), Vec::new());
    for Failure { what, window } in failures {
        match window.map(|(from, to)| denied(from, to)).filter(Denial::is_busy) {
            Some(denial) => not_judged.push(format!("{what} ({denial})")),
            None => failed.push(what.clone()),
        }
    }
    match (failed.is_empty(), not_judged.is_empty()) {
        (false, _) => Verdict::Failed(failed),
        (true, false) => Verdict::NotJudged(not_judged),
        (true, true) => Verdict::Passed,
    }
}

/// At the head of a test with time bounds: runs the rest of it in a process of its own, and again where it failed while other
/// work held the processors. See [`ran_alone`].
#[macro_export]
macro_rules! timed {
    () => {{
        fn here() {}
        if $crate::ran_alone(std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn totals(waited: u32, own: u32, busy: u32, stolen: u32, throttled: u32) -> Totals {
        Totals { waited: MS * waited, own: MS * own, busy: MS * busy, stolen: MS * stolen, throttled: MS * throttled }
    }

    #[test]
    fn denied_is_what_was_waited_for_while_others_ran() {
        // Of a second: waited, own, busy, stolen, throttled, and what is denied.
        let cases = [
            ("an idle machine", [0, 300, 310, 0, 0], 0),
            ("threads that wait for each other", [900, 2000, 2000, 0, 0], 0),
            ("others on another processor", [3, 500, 1500, 0, 0], 3),
            ("others on the same processor", [600, 700, 2000, 0, 0], 600),
            ("many threads that wait for one other process", [3000, 1500, 2000, 0, 0], 500),
            ("a hypervisor that takes half of it", [0, 500, 500, 500, 0], 500),
            ("a hypervisor that takes from another process", [0, 0, 500, 500, 0], 0),
            ("a quota", [400, 600, 600, 0, 400], 400),
            ("counts that round to more own than busy", [50, 510, 500, 0, 0], 0),
        ];
        for (what, [waited, own, busy, stolen, throttled], denied) in cases {
            let earlier = totals(5, 6, 7, 8, 9);
            let now = totals(5 + waited, 6 + own, 7 + busy, 8 + stolen, 9 + throttled);
            assert_eq!(now.denied_since(&earlier), MS * denied, "{what}");
        }
        assert_eq!(Totals::default().denied_since(&totals(1, 1, 1, 1, 1)), Duration::ZERO, "counts that began anew");
    }

    /// Readings each 100 ms; in the seconds from 10 to 11 others deny `share` of a processor.
    fn one_busy_second(start: Instant, share: f64) -> History {
        let mut history = History::default();
        let mut now = Totals::default();
        for n in 0..300_u32 {
            history.push(start + MS * 100 * n, now);
            let denied = if (100..110).contains(&n) { (MS * 100).mul_f64(share) } else { Duration::ZERO };
            now.waited += denied + MS;
            now.own += MS * 50;
            now.busy += MS * 50 + denied;
        }
        history
    }

    #[test]
    fn a_failure_is_judged_by_its_own_window() {
        let start = Instant::now();
        let history = one_busy_second(start, 0.8);
        let at = |from: u32, to: u32, what: &str| Failure::within(start + MS * from, start + MS * to, what);
        let not_judged = |verdict: &Verdict| matches!(verdict, Verdict::NotJudged(_));
        let starved = "starved";
        assert_eq!(judge(&[], &history), Verdict::Passed, "denied a lot, and all was well");
        let quiet = judge(&[at(4000, 6000, starved)], &history);
        assert_eq!(quiet, Verdict::Failed(vec![starved.into()]), "nothing was denied then");
        assert!(not_judged(&judge(&[at(9000, 10_900, starved)], &history)), "denied then");
        assert!(not_judged(&judge(&[at(10_050, 10_060, starved)], &history)), "a short window is widened");
        assert!(not_judged(&judge(&[at(9990, 11_500, starved)], &history)), "in a part of it");
        assert_eq!(judge(&[at(12_000, 13_000, starved)], &history).status(), 1, "not before");
        let both = judge(&[at(10_000, 11_000, "busy"), at(20_000, 21_000, "quiet")], &history);
        assert_eq!(both, Verdict::Failed(vec!["quiet".into()]), "a busy second excuses no other");
        let wrong = judge(&[at(10_000, 11_000, "busy"), Failure::always("a wrong move")], &history);
        assert_eq!(wrong, Verdict::Failed(vec!["a wrong move".into()]), "and nothing that is no matter of time");
        // A second of load in a window of many.
        assert_eq!(judge(&[at(5000, 25_000, starved)], &history).status(), 1, "0.8 of 20 s");
        assert_eq!(judge(&[at(10_000, 11_000, starved)], &one_busy_second(start, 0.05)).status(), 1, "a little");
    }

    #[test]
    fn without_readings_a_failure_is_the_products() {
        let now = Instant::now();
        let failure = [Failure::within(now, now + MS * 1000, "late")];
        assert_eq!(judge(&failure, &History::default()).status(), 1);
        let mut one = History::default();
        one.push(now, totals(900, 0, 900, 0, 0));
        one.push(now, totals(1900, 0, 1900, 0, 0));
        assert_eq!(judge(&failure, &one).status(), 1, "of one reading there is no difference");
    }

    #[test]
    fn a_window_outside_of_the_readings_takes_the_nearest() {
        let start = Instant::now() + Duration::from_secs(60);
        let history = one_busy_second(start, 0.8);
        let before = history.between(start - Duration::from_secs(5), start + MS * 50);
        assert_eq!((before.span, before.is_busy()), (MS * 100, false));
        let all = history.between(start - Duration::from_secs(5), start + Duration::from_secs(500));
        assert_eq!(all.span, MS * 100 * 299);
    }

    #[test]
    fn verdicts_add_up() {
        let (failed, busy) = (Verdict::Failed(vec!["f".into()]), Verdict::NotJudged(vec!["b".into()]));
        assert_eq!(Verdict::Passed.and(busy.clone()), busy);
        assert_eq!(busy.clone().and(failed.clone()), failed);
        assert_eq!(busy.clone().and(busy.clone()), Verdict::NotJudged(vec!["b".into(), "b".into()]));
        assert_eq!([Verdict::Passed, failed, busy].map(|v| v.status()), [0, 1, NOT_JUDGED]);
    }
}
