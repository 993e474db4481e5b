//! A recording's note about its run.

use fathom_models::families::Loaded;
use fathom_models::graph::params::ParamId;

use super::{RunNote, clock_offset_ns};
use crate::config::RobotConfig;
use crate::policy::Policy;

/// Bytes that the fingerprint covers at each end of a tensor.
const SAMPLE: usize = 4096;

impl RunNote {
    pub(crate) fn of(config: &RobotConfig, policy: &Policy, joints: &[String]) -> RunNote {
        let loaded = policy.session.loaded();
        let info = policy.session.gpu().info();
        RunNote {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: std::path::absolute(&config.model.path).unwrap_or(config.model.path.clone()).display().to_string(),
            family: loaded.family.to_owned(),
            fingerprint: fingerprint(loaded),
            skip_views: config.model.skip_views.clone(),
            views: loaded.model.config.views.clone(),
            prompt: config.model.prompt.clone(),
            adapter: info.name.clone(),
            driver: info.driver.clone(),
            kernels: policy.session.choice().to_string(),
            joints: joints.to_vec(),
            action_rate_hz: config.control.action_rate_hz,
            realtime_offset_ns: u64::try_from(clock_offset_ns()).unwrap_or(0),
        }
    }
}

/// Fingerprint of a checkpoint: its configuration, and names, shapes and both ends of all tensors. It distinguishes two
/// checkpoints without reading them whole.
pub(crate) fn fingerprint(loaded: &Loaded) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(format!("{:?}", loaded.model.config).as_bytes());
    for (n, param) in loaded.model.params.params.iter().enumerate() {
        eat(param.name.as_bytes());
        eat(format!("{:?}", param.shape).as_bytes());
        // A file that inference does not read may be missing.
        let Ok((_, bytes, _)) = loaded.weights.encoded(ParamId(n as u32)) else { continue };
        eat(bytes.get(..SAMPLE).unwrap_or(bytes));
        eat(bytes.get(bytes.len().saturating_sub(SAMPLE)..).unwrap_or_default());
    }
    format!("{hash:016x}")
}
