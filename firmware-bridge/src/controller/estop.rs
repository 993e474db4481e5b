//! The emergency stop's one or two channels. Pure in time.

use crate::output::StopChannels;

/// The state of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StopState {
    /// Whether the joints must be released.
    pub(super) open: bool,
    /// Whether the channels disagree: a welded contact, a cut or a bridged wire.
    pub(super) discrepancy: bool,
    /// Channels that are open, bit 0 the first.
    pub(super) channels: u8,
}

/// Two channels, compared with each other; a single channel counts for both.
///
/// A discrepancy is one channel open for longer than the allowed time while the other is closed, or an opening that
/// ends without both channels having been open together. It lasts until both have been: only a stop that is pressed and
/// released by hand proves that both work.
/// hand proves that both work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EmergencyStop {
    differ_us: u32,
    /// At least one channel has opened since both were closed.
    opened: bool,
    /// Both channels have been open together since both were closed.
    both_opened: bool,
    discrepancy: bool,
}

impl EmergencyStop {
    pub(super) const NEW: Self = Self { differ_us: 0, opened: false, both_opened: false, discrepancy: false };

    pub(super) fn take(&mut self, channels: StopChannels, tick_us: u32, allowed_us: u32) -> StopState {
        let first = !channels.first_closed;
        let second = channels.second_closed.map_or(first, |closed| !closed);
        self.differ_us = if first == second { 0 } else { self.differ_us.saturating_add(tick_us) };
        if first && second {
            self.both_opened = true;
            self.discrepancy = false;
        } else if !first && !second {
            self.discrepancy |= self.opened && !self.both_opened;
            self.both_opened = false;
        } else {
            self.discrepancy |= self.differ_us > allowed_us;
        }
        self.opened = first || second;
        StopState {
            open: first || second,
            discrepancy: self.discrepancy,
            channels: u8::from(first) | u8::from(second && channels.second_closed.is_some()) << 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channels over the ticks, one letter each: `=` both closed, `o` both open, `1` or `2` only that one open.
    fn run(ticks: &str) -> (bool, bool) {
        let mut stop = EmergencyStop::NEW;
        let mut last = (false, false);
        for tick in ticks.chars() {
            let (first_closed, second_closed) = (!matches!(tick, 'o' | '1'), !matches!(tick, 'o' | '2'));
            let channels = StopChannels { first_closed, second_closed: Some(second_closed) };
            let state = stop.take(channels, 2_000, 6_000);
            last = (state.open, state.discrepancy);
        }
        last
    }

    #[test]
    fn two_channels_are_compared() {
        for (ticks, open, discrepancy) in [
            ("====", false, false),
            ("=1oo", true, false),
            ("=2", true, false),
            ("=111", true, false),
            ("=1111", true, true),
            ("=2222", true, true),
            // Closed again without the other one: a bridged wire or a welded contact.
            ("=1=", false, true),
            ("=12=", false, true),
            // Both pressed and released, at slightly different times: proved.
            ("=1o2==", false, false),
            ("=2o1==", false, false),
            ("=1111o2==", false, false),
            ("=1o2222==", false, true),
            ("=oo==", false, false),
            ("=1111=oo", true, false),
            ("=1111=oo==", false, false),
        ] {
            assert_eq!(run(ticks), (open, discrepancy), "{ticks}");
        }
    }

    #[test]
    fn one_channel_agrees_with_itself() {
        let mut stop = EmergencyStop::NEW;
        for first_closed in [true, false, false, false, false, false, true, false] {
            let state = stop.take(StopChannels { first_closed, second_closed: None }, 2_000, 6_000);
            assert_eq!((state.open, state.discrepancy), (!first_closed, false));
            assert_eq!(state.channels, u8::from(!first_closed));
        }
    }
}
