//! systemd: ready after the first warm inference, alive with each control tick.

use std::time::Duration;

use crate::clock::monotonic_ns;

/// Speaks to the service manager, where there is one.
#[derive(Debug)]
pub struct Notify {
    period: Option<Duration>,
    last_ns: u64,
}

impl Notify {
    /// Reads what the service manager expects.
    pub fn new() -> Notify {
        // Half the watchdog's time, so that one late tick does not end the service.
        Notify { period: sd_notify::watchdog_enabled().map(|time| time / 2), last_ns: 0 }
    }

    /// The service is ready.
    pub fn ready(&self, status: &str) {
        Self::send(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
    }

    /// What the service does, or why it does nothing.
    pub fn status(&self, status: &str) {
        Self::send(&[sd_notify::NotifyState::Status(status)]);
    }

    /// The service is ending.
    pub fn stopping(&self) {
        Self::send(&[sd_notify::NotifyState::Stopping]);
    }

    /// A control tick was made: feeds the watchdog when it is time.
    pub fn tick(&mut self) {
        let Some(period) = self.period else { return };
        let now = monotonic_ns();
        if now.saturating_sub(self.last_ns) >= crate::clock::duration_ns(period) {
            self.last_ns = now;
            Self::send(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    fn send(states: &[sd_notify::NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}
