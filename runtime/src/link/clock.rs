//! Relation of the controller's clock to the host's.

/// Limit on the drift between two clocks, in parts per million: two crystals, each 50 ppm off.
const DRIFT_PPM: u64 = 100;

pub use crate::clock::monotonic_ns as host_now_ns;

/// The four times of a heartbeat and its reply, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The heartbeat was made, host clock.
    pub sent_us: u64,
    /// The heartbeat was received, controller clock.
    pub received_us: u64,
    /// The reply was made, controller clock.
    pub replied_us: u64,
    /// The reply was received, host clock.
    pub returned_us: u64,
}

/// The controller's clock minus the host's, with a bound of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    offset_us: i64,
    error_us: u64,
    at_us: u64,
}

impl ClockOffset {
    /// The offset from one exchange; `None` if its times are not in order.
    ///
    /// The true offset is within the error for any delays of the two directions.
    pub fn from_exchange(exchange: &Exchange) -> Option<Self> {
        let round_us = exchange.returned_us.checked_sub(exchange.sent_us)?;
        let inside_us = exchange.replied_us.checked_sub(exchange.received_us)?;
        let outside_us = round_us.checked_sub(inside_us)?;
        let there = signed_difference(exchange.received_us, exchange.sent_us)?;
        let back = signed_difference(exchange.replied_us, exchange.returned_us)?;
        Some(Self {
            offset_us: there.checked_add(back)?.div_euclid(2),
            // The division and the clocks' microseconds are rounded.
            error_us: (outside_us / 2).saturating_add(2),
            at_us: exchange.returned_us,
        })
    }

    /// The better of this and a later one at the later one's time: the smaller error, including the drift since it was
    /// measured. The later one if they contradict each other: a clock has jumped.
    pub fn best(self, later: Self) -> Self {
        let error_us = self.error_us(later.at_us);
        let apart_us = self.offset_us.abs_diff(later.offset_us);
        let jumped = apart_us > error_us.saturating_add(later.error_us) || later.at_us < self.at_us;
        if jumped || later.error_us <= error_us { later } else { self }
    }

    /// Bound of the error at host time `host_us`, in microseconds.
    pub fn error_us(&self, host_us: u64) -> u64 {
        let age_us = host_us.saturating_sub(self.at_us);
        let drift_us = age_us.saturating_mul(DRIFT_PPM) / 1_000_000;
        self.error_us.saturating_add(drift_us)
    }

    /// The host time, CLOCK_MONOTONIC in nanoseconds, of a controller time in microseconds.
    pub fn to_host_ns(&self, controller_us: u64) -> u64 {
        controller_us.saturating_add_signed(self.offset_us.saturating_neg()).saturating_mul(1_000)
    }

    /// The controller time in microseconds of a host time, CLOCK_MONOTONIC in nanoseconds.
    pub fn to_controller_us(&self, host_ns: u64) -> u64 {
        (host_ns / 1_000).saturating_add_signed(self.offset_us)
    }
}

fn signed_difference(a: u64, b: u64) -> Option<i64> {
    i64::try_from(i128::from(a) - i128::from(b)).ok()
}
