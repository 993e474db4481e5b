//! What a directory's files say beyond what inference needs: for `fathom inspect`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{Family, Loaded, openpi, read_json};
use crate::error::ModelError;
use crate::normalize::NormalizationMode;

/// Names, modes, and views that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Names of the state's elements, where a file has them.
    pub state_names: Option<Vec<String>>,
    /// Names of the action's elements, where a file has them.
    pub action_names: Option<Vec<String>>,
    /// How the state is normalised, as the origin calls it.
    pub state_normalization: String,
    /// How the actions are.
    pub action_normalization: String,
    /// Cameras that the checkpoint knows and inference leaves out.
    pub skipped_views: Vec<String>,
    /// Views that have the robot's names of its cameras, by these names: the checkpoint's.
    pub cameras: BTreeMap<String, String>,
}

impl Origin {
    /// What the files of `loaded`'s directory say.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Json`].
    pub fn read(dir: &Path, loaded: &Loaded) -> Result<Origin, ModelError> {
        let json = |file: &str| {
            let path = dir.join(file);
            if path.exists() { read_json(&path) } else { Ok(Value::Null) }
        };
        let [config, info, input, output] =
            ["config.json", "meta/info.json", "policy_preprocessor.json", "policy_postprocessor.json"].map(json);
        let (config, info, input, output) = (config?, info?, input?, output?);
        let step = |steps: &Value, name: &str, key: &str| {
            let steps = steps.get("steps")?.as_array()?;
            let found = steps.iter().find(|s| s.get("registry_name").and_then(Value::as_str) == Some(name))?;
            found.get("config")?.get(key).cloned()
        };
        let feature = |key: &str| names(info.get("features")?.get(key)?.get("names")?);
        let relative = step(&input, "relative_actions_processor", "action_names");

        let lerobot = matches!(loaded.family, Family::LerobotPi0 | Family::LerobotPi05);
        let mode = |steps: &Value, name: &str, kind: &str| -> String {
            if loaded.normalization.source.is_none() {
                return "identity".to_owned();
            }
            let map = step(steps, name, "norm_map").or_else(|| config.get("normalization_mapping").cloned());
            match map.as_ref().and_then(|m| m.get(kind)).and_then(Value::as_str) {
                Some(mode) if lerobot => mode.to_lowercase(),
                _ if lerobot => "mean_std".to_owned(),
                _ if loaded.family == Family::Galaxea => "galaxea".to_owned(),
                _ => own_mode(loaded.model.config.normalization).to_owned(),
            }
        };
        let known: Vec<String> = match loaded.family {
            Family::LerobotPi0 | Family::LerobotPi05 => {
                let features = config.get("input_features").and_then(Value::as_object).into_iter().flatten();
                let visual = features.filter(|(_, f)| f.get("type").and_then(Value::as_str) == Some("VISUAL"));
                visual.map(|(name, _)| name.trim_start_matches("observation.images.").to_owned()).collect()
            }
            Family::Openpi => openpi::VIEWS.map(str::to_owned).to_vec(),
            _ => loaded.skipped_views.clone(),
        };
        let views = &loaded.model.config.views;
        let cameras: Vec<&String> = loaded.cameras.values().collect();
        Ok(Origin {
            state_names: feature("observation.state"),
            action_names: config
                .get("action_feature_names")
                .and_then(names)
                .or_else(|| relative.as_ref().and_then(names))
                .or_else(|| feature("action")),
            state_normalization: mode(&input, "normalizer_processor", "STATE"),
            action_normalization: mode(&output, "unnormalizer_processor", "ACTION"),
            skipped_views: known.into_iter().filter(|v| !views.contains(v) && !cameras.contains(&v)).collect(),
            cameras: loaded.cameras.clone(),
        })
    }
}

fn own_mode(mode: NormalizationMode) -> &'static str {
    match mode {
        NormalizationMode::Zscore { .. } => "zscore",
        NormalizationMode::Quantile { .. } => "quantile",
        NormalizationMode::Minmax { .. } => "minmax",
    }
}

/// A list of names; older datasets have it below a key such as `motors`.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(list) => list.iter().map(|name| Some(name.as_str()?.to_owned())).collect(),
        Value::Object(groups) => groups.values().find_map(names),
        _ => None,
    }
}
