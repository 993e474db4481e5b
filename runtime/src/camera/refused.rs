//! Counts images that came and could not be used, and names them in the log.

use super::CameraError;
use crate::clock::NS_PER_S;

/// Time between two lines of the log about images that are not used.
const PAUSE_NS: u64 = 10 * NS_PER_S;

/// The images of one source that could not be used.
#[derive(Debug)]
pub(crate) struct Refused {
    device: String,
    count: u64,
    /// When the log named one last, CLOCK_MONOTONIC.
    named_ns: Option<u64>,
}

impl Refused {
    pub(crate) fn new(device: String) -> Refused {
        Refused { device, count: 0, named_ns: None }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Counts one. The log names the first, and then one every ten seconds.
    pub(crate) fn note(&mut self, error: &CameraError, now_ns: u64) {
        self.count += 1;
        if self.is_due(now_ns) {
            tracing::warn!(device = self.device, count = self.count, %error, "image not used");
        }
    }

    fn is_due(&mut self, now_ns: u64) -> bool {
        let due = self.named_ns.is_none_or(|named_ns| now_ns.saturating_sub(named_ns) >= PAUSE_NS);
        if due {
            self.named_ns = Some(now_ns);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_log_is_not_flooded() {
        let mut refused = Refused::new("camera".to_owned());
        let mut named = 0;
        for image in 0..1000 {
            let now_ns = image * NS_PER_S / 30;
            named += u32::from(refused.is_due(now_ns));
            refused.note(&CameraError::NoBytes { device: "camera".to_owned() }, now_ns);
        }
        // 33 seconds.
        assert_eq!((refused.count(), named), (1000, 4));
    }
}
