//! Relation of the GPU's clock to CLOCK_MONOTONIC: from the driver if it supports `VK_EXT_calibrated_timestamps`,
//! otherwise bounded by the submission and its completion.

use std::ffi::CStr;
use std::fmt;

use ash::ext::calibrated_timestamps;
use ash::vk;
use wgpu::hal::vulkan as hal;

use super::context::Gpu;
use super::times::{GpuTimes, Origin};

/// The extension that relates the clocks.
pub(super) const EXTENSION: &CStr = calibrated_timestamps::NAME;

/// Whether the driver of `adapter` has the extension.
pub(super) fn is_offered(adapter: &hal::Adapter) -> bool {
    adapter.physical_device_capabilities().supports_extension(EXTENSION)
}

/// The driver's functions that compare the clocks.
pub(super) struct Calibration(calibrated_timestamps::Device);

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calibration")
    }
}

impl Calibration {
    /// The functions, if the driver has them and supports CLOCK_MONOTONIC.
    pub(super) fn of(adapter: &wgpu::Adapter, device: &wgpu::Device) -> Option<Calibration> {
        // SAFETY: the adapter behind the guard is only read from; it is not destroyed.
        let adapter = unsafe { adapter.as_hal::<hal::Api>() }?;
        if !is_offered(&adapter) {
            return None;
        }
        let shared = adapter.shared_instance();
        let instance = calibrated_timestamps::Instance::new(shared.entry(), shared.raw_instance());
        // SAFETY: the physical device belongs to this instance, which is alive behind the guard.
        let domains =
            unsafe { instance.get_physical_device_calibrateable_time_domains(adapter.raw_physical_device()) }.ok()?;
        let both = [vk::TimeDomainEXT::DEVICE, vk::TimeDomainEXT::CLOCK_MONOTONIC];
        if !both.iter().all(|domain| domains.contains(domain)) {
            return None;
        }
        // SAFETY: the device behind the guard is only read from; it is not destroyed.
        let device = unsafe { device.as_hal::<hal::Api>() }?;
        Some(Calibration(calibrated_timestamps::Device::new(shared.raw_instance(), device.raw_device())))
    }

    /// The GPU's tick, CLOCK_MONOTONIC in nanoseconds at the same instant, and the error bound.
    fn now(&self) -> Option<(u64, u64, u64)> {
        let info = |domain| vk::CalibratedTimestampInfoEXT::default().time_domain(domain);
        let both = [info(vk::TimeDomainEXT::DEVICE), info(vk::TimeDomainEXT::CLOCK_MONOTONIC)];
        // SAFETY: the extension was enabled with the device (`device.rs`), which lives as long as the `Gpu` that owns
        // this; both domains were offered.
        let (stamps, deviation) = unsafe { self.0.get_calibrated_timestamps(&both) }.ok()?;
        match stamps.as_slice() {
            [tick, ns] => Some((*tick, *ns, deviation)),
            _ => None,
        }
    }
}

impl Gpu {
    /// Start of the first stage of `times`, at `first_tick`, on the host's clock.
    pub(super) fn origin(&self, times: &GpuTimes, first_tick: Option<u64>) -> Origin {
        let host = &times.host;
        let length_ns = times.stages.last().map_or(0, |s| s.start_ns + s.ns);
        // The work started after its inputs were written, at the earliest while `submit` was still running, and ended
        // before the host saw its completion.
        let (from, to) = (host.filled_ns.min(host.done_ns), host.done_ns.saturating_sub(length_ns));
        let bounded = Origin { ns: to.max(from), error_ns: to.saturating_sub(from) };
        let compared = first_tick.zip(self.calibration.as_ref()).and_then(|(first, calibration)| {
            let (tick, ns, error_ns) = calibration.now()?;
            let ago_ns = (tick.checked_sub(first)? as f64 * self.queries.period()) as u64;
            Some(Origin { ns: ns.checked_sub(ago_ns)?, error_ns })
        });
        // A driver's answer that contradicts these bounds is rejected.
        let possible = |o: &Origin| (from..=to.saturating_add(o.error_ns)).contains(&o.ns);
        compared.filter(possible).unwrap_or(bounded)
    }
}
