//! The wall clock, for people to read: CLOCK_REALTIME. It may be set at any time, forwards or back, and decides no order and no age.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::duration_ns;

/// How far a fault on purpose moved it.
static JUMPED_NS: AtomicI64 = AtomicI64::new(0);

/// Nanoseconds since 1970, 0 before.
pub(crate) fn wall_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    duration_ns(now).saturating_add_signed(JUMPED_NS.load(Ordering::Relaxed))
}

/// Sets the wall clock of this process: a fault on purpose.
pub(crate) fn set_wall(by_ns: i64) {
    JUMPED_NS.fetch_add(by_ns, Ordering::Relaxed);
}
