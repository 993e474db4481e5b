//! Requests by signal: arm, disarm, stop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;

/// Flags that signals set while the loop runs. After the loop, SIGINT and SIGTERM terminate the process again as usual:
/// printing may block on a slow reader.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) arm: Arc<AtomicBool>,
    pub(super) disarm: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn register(stop: &Arc<AtomicBool>) -> io::Result<Signals> {
        over()?.store(false, Ordering::Relaxed);
        let flag = || Arc::new(AtomicBool::new(false));
        let signals = Signals { stop: Arc::clone(stop), arm: flag(), disarm: flag() };
        for (signal, flag) in
            [(SIGINT, &signals.stop), (SIGTERM, &signals.stop), (SIGUSR1, &signals.arm), (SIGUSR2, &signals.disarm)]
        {
            flag::register(signal, Arc::clone(flag))?;
        }
        Ok(signals)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Ok(over) = over() {
            over.store(true, Ordering::Relaxed);
        }
    }
}

/// The flag that no loop of this process runs any more; SIGINT and SIGTERM then have their usual effect.
fn over() -> io::Result<&'static Arc<AtomicBool>> {
    static OVER: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(over) = OVER.get() {
        return Ok(over);
    }
    let over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&over))?;
    }
    Ok(OVER.get_or_init(|| over))
}
