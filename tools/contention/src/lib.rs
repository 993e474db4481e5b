//! Distinguishes a fault of the product from a busy machine.
//!
//! A check with a time bound fails for two reasons: the product is late, or other work held the processors. This crate
//! measures the second. [`Meter`] samples two numbers from `/proc` while a check runs: the time that the threads of the
//! process spent on run queues, and the processor time of other processes. The time that is in both is *denied*: the
//! threads waited while another process ran. A process whose threads only wait for each other is denied nothing, and
//! neither is one beside others on an idle processor.
//!
//! [`judge`] evaluates each failure in its own window. A failure in a window without denied time is a failure of the
//! product, however busy the rest of the run was. A failure in a window with denied time is *not judged*: neither a
//! failure of the product nor a pass. Programs then exit with [`NOT_JUDGED`], and tests use [`timed!`].

mod alone;
mod read;

use std::fmt;
use std::time::{Duration, Instant};

pub use alone::ran_alone;
pub use read::{Meter, Processes, Readings};

/// Exit status of a check that was not judged because the machine was busy. 0 is a pass, 1 a failure.
pub const NOT_JUDGED: u8 = 98;
/// A window with at least this share of one processor denied is busy.
pub const BUSY_SHARE: f64 = 0.1;
/// Shorter windows are extended into the past to this length: the kernel counts idle time in hundredths of a second.
pub const SHORTEST: Duration = Duration::from_millis(300);

/// Quiet samples are joined up to this length.
const LONGEST: Duration = Duration::from_secs(1);

/// Totals since an arbitrary start, read at one time; only their differences are meaningful.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time that the threads of the measured processes waited for a processor, summed over threads.
    pub waited: Duration,
    /// Processor time of the measured processes.
    pub own: Duration,
    /// Processor time of all processes, including the measured ones.
    pub busy: Duration,
    /// Time that a hypervisor gave to others while a processor of this machine was runnable.
    pub stolen: Duration,
    /// Time for which a control group's quota stopped the measured processes.
    pub throttled: Duration,
}

impl Totals {
    /// The processor time that was denied to the measured processes since an earlier reading.
    pub fn denied_since(&self, earlier: &Totals) -> Duration {
        Sample::between(earlier, self, Duration::ZERO).denied()
    }
}

/// The difference of two readings. A run of hours keeps them all: they are small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sample {
    span_us: u32,
    /// Waiting time of the measured processes' threads.
    waited_us: u32,
    /// Processor time of others, or withheld by a quota.
    taken_us: u32,
    /// The measured processes' part of the stolen time.
    stolen_us: u32,
}

impl Sample {
    fn between(earlier: &Totals, later: &Totals, span: Duration) -> Sample {
        let own = later.own.saturating_sub(earlier.own);
        let busy = later.busy.saturating_sub(earlier.busy);
        let share = if busy.is_zero() { 0.0 } else { (own.as_secs_f64() / busy.as_secs_f64()).min(1.0) };
        let us = |duration: Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        Sample {
            span_us: us(span),
            waited_us: us(later.waited.saturating_sub(earlier.waited)),
            taken_us: us(busy.saturating_sub(own) + later.throttled.saturating_sub(earlier.throttled)),
            stolen_us: us(later.stolen.saturating_sub(earlier.stolen).mul_f64(share)),
        }
    }

    /// The threads' waiting time, at most the time of others, plus the stolen time.
    fn denied(&self) -> Duration {
        Duration::from_micros(u64::from(self.waited_us.min(self.taken_us)) + u64::from(self.stolen_us))
    }

    fn span(&self) -> Duration {
        Duration::from_micros(self.span_us.into())
    }

    /// Whether almost nothing was denied.
    fn is_quiet(&self) -> bool {
        self.denied() * 50 < self.span()
    }

    /// The part of it within this part of its span.
    fn part(&self, within: Duration) -> Sample {
        let share = within.as_secs_f64() / self.span().as_secs_f64().max(1e-6);
        let of = |us: u32| (f64::from(us) * share) as u32;
        Sample {
            span_us: of(self.span_us),
            waited_us: of(self.waited_us),
            taken_us: of(self.taken_us),
            stolen_us: of(self.stolen_us),
        }
    }

    /// Both, with the sum of their denied times: waiting in one and others in the other do not combine.
    fn join(&self, next: &Sample) -> Sample {
        let met = |sample: &Sample| sample.waited_us.min(sample.taken_us);
        let met_us = met(self).saturating_add(met(next));
        Sample {
            span_us: self.span_us.saturating_add(next.span_us),
            waited_us: met_us,
            taken_us: met_us,
            stolen_us: self.stolen_us.saturating_add(next.stolen_us),
        }
    }
}

/// Processor time denied in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Denial {
    /// Processor time.
    pub denied: Duration,
    /// Length of the samples that cover the window.
    pub span: Duration,
}

impl Denial {
    /// Whether it is enough to cause a failure in the window: [`BUSY_SHARE`].
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

/// Readings in order of time.
#[derive(Debug, Clone, Default)]
pub struct History {
    first: Option<Instant>,
    last: Option<(Instant, Totals)>,
    samples: Vec<Sample>,
}

impl History {
    /// Adds a reading, unless it is not later than the last one.
    pub fn push(&mut self, at: Instant, totals: Totals) {
        let Some((before, earlier)) = self.last else {
            (self.first, self.last) = (Some(at), Some((at, totals)));
            return;
        };
        let Some(span) = at.checked_duration_since(before).filter(|span| !span.is_zero()) else { return };
        self.last = Some((at, totals));
        let sample = Sample::between(&earlier, &totals, span);
        match self.samples.last_mut() {
            // A longer sample of quiet times loses nothing.
            Some(last) if last.is_quiet() && sample.is_quiet() && last.span() + span <= LONGEST => {
                *last = last.join(&sample)
            }
            _ => self.samples.push(sample),
        }
    }

    /// The time denied between two times, from the samples that cover them; zero without samples. A window shorter than
    /// [`SHORTEST`] is extended into the past.
    ///
    /// The sum over short samples, in each of which threads waited and others ran: a process whose threads wait for
    /// each other in one moment, beside others that run in the next, is denied nothing. The sum is limited to the
    /// waiting time and to the others' time in the whole window: single samples are rounded to the kernel's hundredths
    /// of a second.
    pub fn between(&self, from: Instant, to: Instant) -> Denial {
        let from = to.checked_sub(SHORTEST).map_or(from, |earliest| from.min(earliest));
        let Some(mut begin) = self.first else { return Denial::default() };
        let (mut span, mut denied) = (Duration::ZERO, Duration::ZERO);
        let (mut waited_us, mut taken_us, mut stolen_us) = (0, 0, 0);
        for sample in &self.samples {
            let end = begin + sample.span();
            if end > from && begin < to {
                // A quiet sample may be long: only its part within the window counts.
                let within = end.min(to).saturating_duration_since(begin.max(from));
                let part = if sample.is_quiet() { sample.part(within) } else { *sample };
                span += part.span();
                denied += part.denied();
                waited_us += u64::from(part.waited_us);
                taken_us += u64::from(part.taken_us);
                stolen_us += u64::from(part.stolen_us);
            }
            begin = end;
        }
        Denial { denied: denied.min(Duration::from_micros(waited_us.min(taken_us) + stolen_us)), span }
    }
}

/// A failure found by a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its description.
    pub what: String,
    /// The time in which the product had to run to meet its bound; `None` if lack of processor time cannot explain the
    /// failure.
    pub window: Option<(Instant, Instant)>,
}

impl Failure {
    /// A failure that a busy machine cannot explain.
    pub fn always(what: impl Into<String>) -> Self {
        Self { what: what.into(), window: None }
    }

    /// A failure that lack of processor time between two times may explain.
    pub fn within(from: Instant, to: Instant, what: impl Into<String>) -> Self {
        Self { what: what.into(), window: Some((from, to)) }
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No failure, however busy the machine.
    Passed,
    /// The product failed: these failures are in windows without denied time.
    Failed(Vec<String>),
    /// All failures are in windows in which other work held the processors.
    NotJudged(Vec<String>),
}

impl Verdict {
    /// The exit status of a program with this result.
    pub fn status(&self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Failed(_) => 1,
            Verdict::NotJudged(_) => NOT_JUDGED,
        }
    }

    /// Combines two checks: one failure fails both, and a pass requires both to be judged.
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

/// Judges each failure by the time denied in its window.
pub fn judge(failures: &[Failure], history: &History) -> Verdict {
    judge_by(failures, |from, to| history.between(from, to))
}

/// As [`judge`], with another measure of windows.
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

/// At the start of a test with time bounds: runs the rest of it in a process of its own, and again if it failed while
/// other work held the processors. See [`ran_alone`].
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

    /// Threads that wait for each other in one tenth of a second, beside others that run in the next.
    #[test]
    fn waiting_and_others_have_to_meet() {
        let start = Instant::now();
        let (mut history, mut now) = (History::default(), Totals::default());
        for n in 0..100_u32 {
            history.push(start + MS * 100 * n, now);
            let burst = n % 2 == 0;
            now.waited += if burst { MS * 150 } else { Duration::ZERO };
            now.own += if burst { MS * 200 } else { Duration::ZERO };
            now.busy += MS * 200;
        }
        assert_eq!(history.between(start, start + MS * 9000).denied, Duration::ZERO);
    }

    /// Idle time is counted in hundredths of a second: others seem to run now and then.
    #[test]
    fn rounding_denies_nothing() {
        let start = Instant::now();
        let (mut history, mut now) = (History::default(), Totals::default());
        for n in 0..100_u32 {
            let rounded = Totals { busy: now.busy + MS * 10 * (n % 2), ..now };
            history.push(start + MS * 100 * n, rounded);
            now.waited += MS * 100;
            now.own += MS * 200;
            now.busy += MS * 200;
        }
        let all = history.between(start, start + MS * 9000);
        assert!(!all.is_busy() && all.denied <= MS * 500, "{all}");
    }

    /// An hour of quiet is no memory to speak of, and a busy moment in it is not lost.
    #[test]
    fn quiet_samples_are_joined() {
        let start = Instant::now();
        let (mut history, mut now) = (History::default(), Totals::default());
        for n in 0..36_000_u32 {
            history.push(start + MS * 100 * n, now);
            let denied = if (20_005..20_008).contains(&n) { MS * 80 } else { MS };
            now.waited += denied;
            now.own += MS * 50;
            now.busy += MS * 50 + denied;
        }
        assert!(history.samples.len() < 3_700, "{} samples", history.samples.len());
        assert!(history.between(start + MS * 2_000_500, start + MS * 2_000_800).is_busy());
        assert!(
            history.between(start + MS * 2_000_300, start + MS * 2_000_600).is_busy(),
            "beside a long quiet sample"
        );
        assert!(!history.between(start + MS * 1_990_000, start + MS * 1_999_000).is_busy());
        assert!(!history.between(start, start + MS * 3_600_000).is_busy());
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
    fn a_window_that_no_reading_covers_has_nothing_denied() {
        let start = Instant::now() + Duration::from_secs(60);
        let history = one_busy_second(start, 0.8);
        let before = history.between(start - Duration::from_secs(5), start - Duration::from_secs(1));
        assert_eq!(before, Denial::default());
        assert_eq!(
            history.between(start + Duration::from_secs(500), start + Duration::from_secs(501)),
            Denial::default()
        );
        let all = history.between(start - Duration::from_secs(5), start + Duration::from_secs(500));
        // Parts of quiet samples are rounded down.
        assert!(MS * 100 * 299 - all.span < MS, "{all}");
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
