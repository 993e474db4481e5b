//! The wake-up of the control thread.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::clock::monotonic_ns;

/// Wakes one thread, its owner, from [`Waker::wait_until_ns`]. A wake before the wait makes the wait return at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waker(Arc<OnceLock<Thread>>);

impl Waker {
    /// Makes the calling thread the owner; the first caller wins.
    pub(crate) fn own(&self) {
        self.0.get_or_init(thread::current);
    }

    /// Wakes the owner, if there is one.
    pub(crate) fn wake(&self) {
        if let Some(owner) = self.0.get() {
            owner.unpark();
        }
    }

    /// The owner's wait: until `deadline_ns` on CLOCK_MONOTONIC, or until it is woken. Returns whether it was woken,
    /// possibly spuriously.
    pub(crate) fn wait_until_ns(&self, deadline_ns: u64) -> bool {
        let left_ns = deadline_ns.saturating_sub(monotonic_ns());
        if left_ns > 0 {
            thread::park_timeout(Duration::from_nanos(left_ns));
        }
        monotonic_ns() < deadline_ns
    }
}
