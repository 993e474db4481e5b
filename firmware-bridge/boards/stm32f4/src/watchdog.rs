//! The independent watchdog (RM0090 chapter 21), with its own clock that no software stops.

use firmware_bridge::controller::WholeTick;

use crate::register::{DBGMCU_APB1_FZ, RCC_CSR, Register};

/// Key register: unlocks, starts and feeds.
const KEY: Register = Register::at(0x4000_3000, 0x00);
/// Prescaler of the 32 kHz clock.
const PRESCALER: Register = Register::at(0x4000_3000, 0x04);
/// Counts from feeding to reset.
const RELOAD: Register = Register::at(0x4000_3000, 0x08);

/// Ten ticks of 2 ms at 32 kHz; a chip's clock is between 17 and 47 kHz, which gives 13.6 to 37.6 ms.
const COUNTS: u32 = 160;

/// The running watchdog: without a complete control tick for 20 ms the board resets and is disarmed.
#[derive(Debug)]
pub struct Watchdog(());

impl Watchdog {
    /// Starts it; it cannot be stopped. A debugger that halts the core also halts the watchdog.
    pub fn start() -> Self {
        DBGMCU_APB1_FZ.modify(0, 1 << 12);
        KEY.write(0x5555);
        // A quarter of the clock.
        PRESCALER.write(0);
        RELOAD.write(COUNTS);
        KEY.write(0xCCCC);
        KEY.write(0xAAAA);
        Self(())
    }

    /// Feeds it. The argument proves that a tick did all of its work.
    pub fn feed(&self, _tick: WholeTick) {
        KEY.write(0xAAAA);
    }
}

/// Whether the watchdog reset the board; true only once.
pub fn has_reset() -> bool {
    const BY_WATCHDOG: u32 = 1 << 29;
    const FORGET: u32 = 1 << 24;
    let reset = RCC_CSR.read() & BY_WATCHDOG != 0;
    RCC_CSR.modify(0, FORGET);
    reset
}
