use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::ModelError;
use crate::io::is_there;
use crate::io::json::read_json;
use crate::nets::config::{PromptFormat, Resize};

/// `fathom.json`: values that neither tensor shapes nor the origin's configuration give.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hints {
    pub(super) heads: Option<usize>,
    pub(super) kv_heads: Option<usize>,
    pub(super) vision_heads: Option<usize>,
    pub(super) patch: Option<usize>,
    /// The cameras that the robot has: the checkpoint's others are skipped. For open-pi-zero and Galaxea, whose files do not
    /// name them, all cameras in order.
    pub(super) views: Option<Vec<String>>,
    /// The robot's names of cameras, and which view of the checkpoint each is.
    pub(super) cameras: Option<BTreeMap<String, String>>,
    /// Instead of the family's own.
    pub(super) resize: Option<Resize>,
    /// Instead of the family's own.
    pub(super) prompt: Option<PromptFormat>,
    /// Whether an element of state or action that never changed in training is taken as constant, and not refused.
    #[serde(default)]
    pub(super) allow_constant: bool,
    /// Galaxea: `z-score`, `min/max`, `q01/q99`, or a range such as `0/100`.
    pub(super) norm_default_mode: Option<String>,
    /// Galaxea: for `action` and `state`, modes of single keys.
    #[serde(default)]
    pub(super) norm_exception_mode: BTreeMap<String, BTreeMap<String, String>>,
    /// Galaxea: whether each step of a chunk has statistics of its own.
    pub(super) use_stepwise_action_norm: Option<bool>,
    /// openpi: which folder of `assets` has the statistics, if there are several.
    pub(super) asset_id: Option<String>,
    /// openpi's `make_bool_mask`: `[6, -1]` is six elements relative to the state, and one absolute.
    pub(super) relative_actions: Option<Vec<i32>>,
    /// Longest prompt, if the origin's files do not say.
    pub(super) max_tokens: Option<usize>,
    /// Flow steps, if the origin's files do not say.
    pub(super) steps: Option<usize>,
    /// open-pi-zero, Galaxea: actions in a chunk.
    pub(super) horizon: Option<usize>,
    /// open-pi-zero, Galaxea: of the time embedding.
    pub(super) max_period: Option<f64>,
    /// openpi's `discrete_state_input`.
    pub(super) state_in_prompt: Option<bool>,
}

impl Hints {
    pub(super) fn read(dir: &Path) -> Result<Hints, ModelError> {
        let path = dir.join("fathom.json");
        if is_there(&path) { Ok(read_json(&path)?) } else { Ok(Hints::default()) }
    }

    /// The mask, element by element.
    pub(super) fn relative(&self) -> Vec<bool> {
        let parts = self.relative_actions.iter().flatten();
        parts.flat_map(|n| std::iter::repeat_n(*n > 0, n.unsigned_abs() as usize)).collect()
    }
}
