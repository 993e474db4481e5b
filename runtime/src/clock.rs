//! The one clock of the runtime: CLOCK_MONOTONIC, in nanoseconds.
//!
//! Camera drivers stamp images with the same clock, so that an image's age is a plain difference.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// Displacement of the clock by an injected fault.
static JUMPED_NS: AtomicI64 = AtomicI64::new(0);

/// An instant of this computer: nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostNs(pub u64);

impl HostNs {
    /// The current instant.
    #[must_use]
    pub fn now() -> HostNs {
        HostNs(monotonic_ns())
    }

    /// Nanoseconds since `earlier`; 0 where that is later.
    #[must_use]
    pub fn since(self, earlier: HostNs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant `ns` nanoseconds later.
    #[must_use]
    pub fn after(self, ns: u64) -> HostNs {
        HostNs(self.0.saturating_add(ns))
    }
}

/// An instant of the motor controller: microseconds of its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ControllerUs(pub u64);

impl ControllerUs {
    /// The time `us` microseconds later.
    #[must_use]
    pub fn after(self, us: u64) -> ControllerUs {
        ControllerUs(self.0.saturating_add(us))
    }

    /// Microseconds since `earlier`; 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: ControllerUs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The current time in nanoseconds of CLOCK_MONOTONIC (since boot, not counting suspend).
#[must_use]
pub fn monotonic_ns() -> u64 {
    kernel_ns().saturating_add_signed(JUMPED_NS.load(Ordering::Relaxed))
}

/// Moves the clock of this process: an injected fault.
#[cfg(feature = "robot")]
pub(crate) fn jump(ns: i64) {
    JUMPED_NS.fetch_add(ns, Ordering::Relaxed);
}

/// CLOCK_MONOTONIC from the kernel.
pub(crate) fn kernel_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both parts are never negative on this clock; a negative one would count as zero.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_S).saturating_add(nanos)
}

/// A duration in nanoseconds, capped at `u64::MAX` (584 years).
#[must_use]
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sleeps until `deadline_ns` on CLOCK_MONOTONIC; returns at once when it has passed.
pub fn sleep_until_ns(deadline_ns: u64) {
    loop {
        let now_ns = monotonic_ns();
        if now_ns >= deadline_ns {
            return;
        }
        thread::sleep(Duration::from_nanos(deadline_ns - now_ns));
    }
}

/// Instants at a steady rate: instant `n` is `start + n · period`.
///
/// A late caller skips instants, so the numbers have gaps, like a camera's sequence.
#[derive(Debug, Clone)]
pub struct Pace {
    period_ns: u64,
    /// Time and number of the latest instant handed out.
    last: Option<(u64, u64)>,
}

impl Pace {
    /// A pace of `rate_hz` instants per second; without any waiting if it is zero, negative or not finite.
    #[must_use]
    pub fn new(rate_hz: f32) -> Self {
        let period_ns =
            if rate_hz.is_finite() && rate_hz > 0.0 { (NS_PER_S as f64 / f64::from(rate_hz)) as u64 } else { 0 };
        Self { period_ns, last: None }
    }

    /// Waits for the next instant and returns its number, counted from 0.
    ///
    /// Returns `None`, after `timeout`, if the instant lies beyond it; the instant remains the next one.
    pub fn wait(&mut self, timeout: Duration) -> Option<u64> {
        let now_ns = monotonic_ns();
        let (due_ns, number) = match self.last {
            None => (now_ns, 0),
            Some((_, number)) if self.period_ns == 0 => (now_ns, number + 1),
            Some((last_ns, number)) => {
                let passed = now_ns.saturating_sub(last_ns) / self.period_ns;
                let steps = passed.max(1);
                (last_ns.saturating_add(steps.saturating_mul(self.period_ns)), number + steps)
            }
        };
        let limit_ns = now_ns.saturating_add(duration_ns(timeout));
        if due_ns > limit_ns {
            sleep_until_ns(limit_ns);
            return None;
        }
        sleep_until_ns(due_ns);
        self.last = Some((due_ns, number));
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_caller_skips_instants_and_stays_on_the_grid() {
        fathom_contention::timed!();
        let mut pace = Pace::new(200.0);
        assert_eq!(pace.wait(Duration::from_secs(1)), Some(0));
        let first_ns = pace.last.map(|last| last.0).unwrap();
        thread::sleep(Duration::from_millis(18));
        let number = pace.wait(Duration::from_secs(1)).unwrap();
        assert!(number >= 3, "18 ms are three periods of 5 ms, got {number}");
        assert_eq!(pace.last, Some((first_ns + number * 5_000_000, number)));
    }

    #[test]
    fn an_instant_beyond_the_timeout_is_not_consumed() {
        fathom_contention::timed!();
        let mut pace = Pace::new(5.0);
        assert_eq!(pace.wait(Duration::ZERO), Some(0));
        assert_eq!(pace.wait(Duration::from_millis(5)), None);
        assert_eq!(pace.wait(Duration::from_secs(1)), Some(1));
    }

    #[test]
    fn without_a_rate_every_call_is_the_next_instant() {
        let mut pace = Pace::new(0.0);
        for number in 0..5 {
            assert_eq!(pace.wait(Duration::ZERO), Some(number));
        }
    }
}
