//! Which entry of a request is which view, and which are the state: openpi's robots, and lerobot's names.

use std::fmt;
use std::str::FromStr;

/// The entries of a request. A slash is part of a key, or leads into a nested map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Of each view of the policy, the key of its image.
    pub(crate) views: Vec<(String, String)>,
    /// The keys of the state, joined in this order.
    pub(crate) state: Vec<String>,
    /// The key of the task.
    pub(crate) prompt: String,
}

/// Names of entries that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// lerobot's: `observation.images.VIEW`, `observation.state`, `task`.
    Lerobot,
    /// openpi's LIBERO: `observation/image`, `observation/wrist_image`, `observation/state`, `prompt`.
    Libero,
    /// openpi's DROID: `observation/exterior_image_1_left`, `observation/wrist_image_left`, `observation/joint_position` and
    /// `observation/gripper_position`, `prompt`.
    Droid,
}

impl Preset {
    const ALL: [(&str, Preset); 3] =
        [("lerobot", Preset::Lerobot), ("libero", Preset::Libero), ("droid", Preset::Droid)];
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Preset, String> {
        let found = Preset::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, preset)| *preset).ok_or_else(|| {
            let known: Vec<&str> = Preset::ALL.iter().map(|(name, _)| *name).collect();
            format!("expected {}", known.join(", "))
        })
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Preset::ALL.iter().find(|(_, preset)| preset == self);
        f.write_str(found.map_or("", |(name, _)| *name))
    }
}

/// Keys that do not serve the policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// A view has no key.
    #[error("view {view} of the policy has no key with {preset}; give --view {view}=KEY, or --skip-view {view}")]
    View { view: String, preset: Preset },
    /// A key is given for a view that the policy does not have.
    #[error("--view {view}: expected a view of the policy ({known}), found {view}")]
    Unknown { view: String, known: String },
}

impl Keys {
    /// The keys for these views; `more` and `state`, where given, replace the preset's.
    pub(crate) fn new(
        preset: Preset,
        views: &[String],
        more: &[(String, String)],
        state: &[String],
        prompt: Option<String>,
    ) -> Result<Keys, KeysError> {
        if let Some((view, _)) = more.iter().find(|(view, _)| !views.contains(view)) {
            return Err(KeysError::Unknown { view: view.clone(), known: views.join(", ") });
        }
        let key = |(index, view): (usize, &String)| {
            let given = more.iter().find(|(name, _)| name == view).map(|(_, key)| key.clone());
            let known = || match preset {
                Preset::Lerobot => Some(format!("observation.images.{view}")),
                Preset::Libero => ["observation/image", "observation/wrist_image"].get(index).map(ToString::to_string),
                Preset::Droid => {
                    let keys = ["observation/exterior_image_1_left", "observation/wrist_image_left"];
                    keys.get(index).map(ToString::to_string)
                }
            };
            let key = given.or_else(known).ok_or_else(|| KeysError::View { view: view.clone(), preset })?;
            Ok((view.clone(), key))
        };
        let own_state: &[&str] = match preset {
            Preset::Lerobot => &["observation.state"],
            Preset::Libero => &["observation/state"],
            Preset::Droid => &["observation/joint_position", "observation/gripper_position"],
        };
        let own_prompt = if preset == Preset::Lerobot { "task" } else { "prompt" };
        Ok(Keys {
            views: views.iter().enumerate().map(key).collect::<Result<_, _>>()?,
            state: if state.is_empty() { own_state.iter().map(ToString::to_string).collect() } else { state.to_vec() },
            prompt: prompt.unwrap_or_else(|| own_prompt.to_owned()),
        })
    }
}
