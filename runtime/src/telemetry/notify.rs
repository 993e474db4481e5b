//! systemd: ready after the first warm inference, alive with each control tick.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::monotonic_ns;
use crate::events::{LoopEvent, LoopMode};

/// Notifies the service manager, if there is one.
#[derive(Debug)]
pub struct Notify {
    period: Option<Duration>,
    last_ns: u64,
}

impl Notify {
    /// Reads the service manager's settings from the environment.
    pub fn new() -> Notify {
        // Half of the watchdog's time, so that one late tick does not end the service.
        Notify { period: sd_notify::watchdog_enabled().map(|time| time / 2), last_ns: 0 }
    }

    /// Reports an event of the loop: ready, tick, fault or stop.
    pub(crate) fn on(&mut self, event: &LoopEvent) {
        match event {
            LoopEvent::Tick { .. } => self.tick(),
            LoopEvent::Mode { from: LoopMode::Warm, to: LoopMode::Ready, .. } => {
                Self::send(&[NotifyState::Ready, NotifyState::Status("warm")]);
            }
            LoopEvent::Mode { to: to @ LoopMode::Fault(_), detail, .. } => {
                Self::send(&[NotifyState::Status(&format!("{to}: {detail}"))]);
                Self::send(&[NotifyState::Stopping]);
            }
            LoopEvent::Mode { to: LoopMode::Stop, .. } => Self::send(&[NotifyState::Stopping]),
            _ => {}
        }
    }

    /// After a control tick: feeds the watchdog if it is due.
    fn tick(&mut self) {
        let Some(period) = self.period else { return };
        let now = monotonic_ns();
        if now.saturating_sub(self.last_ns) >= crate::clock::duration_ns(period) {
            self.last_ns = now;
            Self::send(&[NotifyState::Watchdog]);
        }
    }

    fn send(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "could not notify the service manager");
        }
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}
