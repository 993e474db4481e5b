//! The system clock from the crystal, and the time since power-on from SysTick.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;

use crate::register::{FLASH_ACR, PWR_CR, RCC_APB1ENR, RCC_CFGR, RCC_CR, RCC_PLLCFGR};

/// Number of reads of a ready flag before giving up: about ten milliseconds.
const PATIENCE: u32 = 100_000;

static TICKS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    TICKS.store(TICKS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Derivation of the system clock from the crystal: `crystal / divide * multiply / 2`.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    /// The crystal in MHz; the PLL's input is 1 MHz.
    pub crystal_mhz: u32,
    /// Twice the system clock in MHz.
    pub multiply: u32,
    /// The flash memory's wait states at that clock.
    pub wait_states: u32,
    /// The slower peripherals' clock is the system clock divided by 2 to the power of this.
    pub slow_shift: u32,
    /// The same for the faster peripherals.
    pub fast_shift: u32,
}

impl Tree {
    /// The system clock in MHz.
    pub const fn system_mhz(&self) -> u32 {
        self.multiply / 2
    }

    /// The clock of the slower peripherals (USART2) in Hz.
    pub const fn slow_hz(&self) -> u32 {
        (self.system_mhz() * 1_000_000) >> self.slow_shift
    }

    /// The clock of the faster peripherals (USART1) in Hz.
    pub const fn fast_hz(&self) -> u32 {
        (self.system_mhz() * 1_000_000) >> self.fast_shift
    }

    /// Switches to the crystal's clock; `false` if the crystal or the PLL does not start.
    ///
    /// An emulator without clock registers reads all of them as 0 and uses its own clock.
    pub fn start(&self) -> bool {
        const HSEON: u32 = 1 << 16;
        const HSERDY: u32 = 1 << 17;
        const PLLON: u32 = 1 << 24;
        const PLLRDY: u32 = 1 << 25;
        const FROM_CRYSTAL: u32 = 1 << 22;
        if RCC_CR.read() == 0 {
            return true;
        }
        // The core's highest voltage.
        RCC_APB1ENR.modify(0, 1 << 28);
        PWR_CR.modify(0, 0b11 << 14);
        RCC_CR.modify(0, HSEON);
        if !becomes(|| RCC_CR.read() & HSERDY != 0) {
            return false;
        }
        // USB is unused, but its divider must not give more than 48 MHz.
        let usb = self.multiply.div_ceil(48).clamp(2, 15);
        RCC_PLLCFGR.write(usb << 24 | FROM_CRYSTAL | self.multiply << 6 | self.crystal_mhz);
        RCC_CR.modify(0, PLLON);
        if !becomes(|| RCC_CR.read() & PLLRDY != 0) {
            return false;
        }
        // Prefetch and caches.
        FLASH_ACR.write(0b111 << 8 | self.wait_states);
        let divider = |shift: u32| if shift == 0 { 0 } else { 0b100 | (shift - 1) };
        RCC_CFGR.write(divider(self.fast_shift) << 13 | divider(self.slow_shift) << 10 | 0b10);
        becomes(|| RCC_CFGR.read() >> 2 & 0b11 == 0b10)
    }
}

fn becomes(ready: impl Fn() -> bool) -> bool {
    (0..PATIENCE).any(|_| ready())
}

/// Time since power-on.
#[derive(Debug)]
pub struct Clock {
    counts_per_us: u32,
    counts_per_tick: u32,
    last_ticks: u32,
    /// [`TICKS`] without its wrap.
    ticks: u64,
}

impl Clock {
    /// Starts SysTick with an interrupt each `tick_us` microseconds, at most 99 ms at 168 MHz.
    pub fn start(mut syst: SYST, tree: &Tree, tick_us: u32) -> Self {
        let counts_per_us = tree.system_mhz();
        let counts_per_tick = counts_per_us * tick_us;
        syst.set_clock_source(SystClkSource::Core);
        syst.set_reload(counts_per_tick.saturating_sub(1));
        syst.clear_current();
        syst.enable_counter();
        syst.enable_interrupt();
        Self { counts_per_us, counts_per_tick, last_ticks: TICKS.load(Ordering::Relaxed), ticks: 0 }
    }

    /// Sleeps until the next tick; returns at once if a tick has passed since the last wait.
    pub fn wait_for_tick(&mut self) {
        while TICKS.load(Ordering::Relaxed) == self.last_ticks {
            // An interrupt between the test and the sleep ends the sleep.
            cortex_m::interrupt::disable();
            if TICKS.load(Ordering::Relaxed) == self.last_ticks {
                cortex_m::asm::wfi();
            }
            // SAFETY: the main loop holds no critical section here.
            unsafe { cortex_m::interrupt::enable() };
        }
        self.counts();
    }

    /// Counts of the processor's clock since [`Clock::start`].
    pub fn counts(&mut self) -> u64 {
        let (ticks, left) = loop {
            let ticks = TICKS.load(Ordering::Relaxed);
            let left = SYST::get_current();
            if ticks == TICKS.load(Ordering::Relaxed) {
                break (ticks, left);
            }
        };
        self.ticks = self.ticks.wrapping_add(u64::from(ticks.wrapping_sub(self.last_ticks)));
        self.last_ticks = ticks;
        let counts = self.counts_per_tick.saturating_sub(1).saturating_sub(left);
        self.ticks.wrapping_mul(self.counts_per_tick.into()).wrapping_add(counts.into())
    }

    /// Microseconds since [`Clock::start`].
    pub fn now_us(&mut self) -> u64 {
        // A 64-bit division in software, once a tick.
        self.counts().checked_div(self.counts_per_us.into()).unwrap_or(0)
    }
}
