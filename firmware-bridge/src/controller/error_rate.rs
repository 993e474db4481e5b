//! Limit on the rate of broken frames from the host. Pure in time.

/// The rate of broken frames as the time until which the frames so far would occupy the line at the limit rate (the
/// generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorRate {
    filled_us: u64,
}

impl ErrorRate {
    /// The time over which frames are counted, in microseconds.
    const WINDOW_US: u64 = 1_000_000;

    pub(super) const NEW: Self = Self { filled_us: 0 };

    /// Counts a broken frame. Returns whether there were more than `limit` within the last second. A limit of 0 counts
    /// as 1.
    pub(super) fn count(&mut self, now_us: u64, limit: u16) -> bool {
        let frame_us = Self::WINDOW_US.checked_div(u64::from(limit)).unwrap_or(Self::WINDOW_US);
        let filled_us = self.filled_us.max(now_us).saturating_add(frame_us);
        let over = filled_us.saturating_sub(now_us) > Self::WINDOW_US;
        // At most one window: the line is good again a second after its last burst.
        self.filled_us = filled_us.min(now_us.saturating_add(Self::WINDOW_US));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_a_rate_are_limited() {
        let mut rate = ErrorRate::NEW;
        let burst: usize = (0..100).map(|_| usize::from(rate.count(5_000_000, 50))).sum();
        assert_eq!(burst, 50, "the first 50 at once are allowed");
        assert!(rate.count(5_500_000, 1) && !rate.count(7_000_000, 50), "forgotten after a second");

        let mut rate = ErrorRate::NEW;
        assert!((0..10_000_u64).all(|frame| !rate.count(frame * 20_000, 50)), "50 a second forever");
        let mut rate = ErrorRate::NEW;
        assert!((0..1_000_u64).any(|frame| rate.count(frame * 18_000, 50)), "55 a second not for long");
    }
}
