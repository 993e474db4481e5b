//! Names and modes in a directory's files that inference does not need, for `fathom inspect`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{Family, Loaded};
use crate::error::ModelError;
use crate::io::is_there;
use crate::io::json::{Json, read_tree};

/// Names, modes and skipped views.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Names of the state's elements, if a file has them.
    pub state_names: Option<Vec<String>>,
    /// Names of the action's elements, if a file has them.
    pub action_names: Option<Vec<String>>,
    /// The state's normalisation, in the origin's terms.
    pub state_normalization: String,
    /// The actions' normalisation, in the origin's terms.
    pub action_normalization: String,
    /// Cameras that the checkpoint has and inference skips.
    pub skipped_views: Vec<String>,
    /// Views that have the robot's names of its cameras, by these names: the checkpoint's.
    pub cameras: BTreeMap<String, String>,
}

impl Origin {
    /// Reads the files of `loaded`'s directory.
    ///
    /// # Errors
    /// [`ModelError::File`].
    pub fn read(dir: &Path, loaded: &Loaded) -> Result<Origin, ModelError> {
        let json = |file: &str| -> Result<Json<'static>, ModelError> {
            let path = dir.join(file);
            if is_there(&path) { Ok(read_tree(&path)?) } else { Ok(Json::Null) }
        };
        let [config, info, input, output] =
            ["config.json", "meta/info.json", "policy_preprocessor.json", "policy_postprocessor.json"].map(json);
        let (config, info, input, output) = (config?, info?, input?, output?);
        let feature = |key: &str| names(info.get("features")?.get(key)?.get("names")?);
        let relative = step(&input, "relative_actions_processor", "action_names");

        let family: &Family = loaded.family.parse()?;
        let mode = |steps: &Json<'_>, name: &str, kind: &str| -> String {
            if loaded.normalization.source.is_none() {
                return "identity".to_owned();
            }
            let map = step(steps, name, "norm_map").or_else(|| config.get("normalization_mapping"));
            let said = map.and_then(|m| m.get(kind)).and_then(Json::as_str);
            (family.mode_name)(said, loaded.model.config.normalization)
        };
        let known = (family.views)(&config, loaded);
        let views = &loaded.model.config.views;
        let cameras: Vec<&String> = loaded.cameras.values().collect();
        Ok(Origin {
            state_names: feature("observation.state"),
            action_names: config
                .get("action_feature_names")
                .and_then(names)
                .or_else(|| relative.and_then(names))
                .or_else(|| feature("action")),
            state_normalization: mode(&input, "normalizer_processor", "STATE"),
            action_normalization: mode(&output, "unnormalizer_processor", "ACTION"),
            skipped_views: known.into_iter().filter(|v| !views.contains(v) && !cameras.contains(&v)).collect(),
            cameras: loaded.cameras.clone(),
        })
    }
}

/// A key of the configuration of a processor's step.
fn step<'t>(file: &'t Json<'_>, name: &str, key: &str) -> Option<&'t Json<'t>> {
    let Json::Array(steps) = file.get("steps")? else { return None };
    let found = steps.iter().find(|s| s.get("registry_name").and_then(Json::as_str) == Some(name))?;
    found.get("config")?.get(key)
}

/// A list of names; older datasets have it below a key such as `motors`.
fn names(value: &Json<'_>) -> Option<Vec<String>> {
    match value {
        Json::Array(list) => list.iter().map(|name| Some(name.as_str()?.to_owned())).collect(),
        Json::Object(groups) => groups.iter().find_map(|(_, group)| names(group)),
        _ => None,
    }
}
