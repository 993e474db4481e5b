//! The wall clock for display: CLOCK_REALTIME. It may be set forwards or back at any time, so it never decides an order
//! or an age.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::duration_ns;

/// Displacement by an injected fault.
static JUMPED_NS: AtomicI64 = AtomicI64::new(0);

/// Nanoseconds since 1970, 0 before.
pub(crate) fn wall_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    duration_ns(now).saturating_add_signed(JUMPED_NS.load(Ordering::Relaxed))
}

/// Sets the wall clock of this process: an injected fault.
pub(crate) fn set_wall(by_ns: i64) {
    JUMPED_NS.fetch_add(by_ns, Ordering::Relaxed);
}
