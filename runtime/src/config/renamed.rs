//! Names of `robot.toml` that have changed.

/// An old name in a `robot.toml`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Renamed {
    /// A section.
    #[error("[{old}]: the section is named [{new}]")]
    Section {
        /// Its old name.
        old: &'static str,
        /// Its name.
        new: &'static str,
    },
    /// A kind of camera.
    #[error("camera[{index}].source.kind = \"{old}\": the kind is named \"{new}\"")]
    CameraKind {
        /// The camera's place in the file.
        index: usize,
        /// The old name.
        old: &'static str,
        /// The name.
        new: &'static str,
    },
}

/// All old names in the text of a `robot.toml`.
pub(super) fn find(text: &str) -> Vec<Renamed> {
    let Ok(file) = toml::from_str::<toml::Table>(text) else { return Vec::new() };
    let (old, new) = ("bench", "scene");
    let section = file.contains_key(old).then_some(Renamed::Section { old, new });
    let cameras = file.get("camera").and_then(toml::Value::as_array).into_iter().flatten().enumerate();
    let is_old = |camera: &toml::Value| camera.get("source")?.get("kind")?.as_str().map(|kind| kind == old);
    let kinds = cameras.filter(|(_, camera)| is_old(camera) == Some(true));
    section.into_iter().chain(kinds.map(|(index, _)| Renamed::CameraKind { index, old, new })).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

    use super::Renamed;
    use crate::config::{RobotConfig, RobotConfigError};

    #[test]
    fn an_old_name_is_an_error_that_gives_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("robot.toml");
        let load = |section: &str, kind: &str| {
            let text = format!(
                "[model]\npath = \"model\"\nprompt = \"reach\"\n[link]\ndevice = \"simulated\"\n[{section}]\nseed = 1\n\
                 [[camera]]\nview = \"base\"\nsource = {{ kind = \"folder\", folder = \"pictures\", rate_hz = 1 }}\n\
                 [[camera]]\nview = \"wrist\"\nsource = {{ kind = \"{kind}\", rate_hz = 10 }}\n"
            );
            std::fs::write(&path, text).unwrap();
            RobotConfig::load(&path)
        };
        let section = Renamed::Section { old: "bench", new: "scene" };
        let kind = Renamed::CameraKind { index: 1, old: "bench", new: "scene" };
        let cases = [("bench", "scene", vec![section.clone()]), ("scene", "bench", vec![kind.clone()])];
        for (name, source, expected) in cases.into_iter().chain([("bench", "bench", vec![section, kind])]) {
            let error = load(name, source).unwrap_err();
            assert!(matches!(&error, RobotConfigError::Renamed { keys, .. } if *keys == expected), "{error}");
        }
        let message = load("bench", "bench").unwrap_err().to_string();
        let expected =
            "[bench]: the section is named [scene]; camera[1].source.kind = \"bench\": the kind is named \"scene\"";
        assert_eq!(message, format!("{}: {expected}", path.display()));
        assert_eq!(load("scene", "scene").unwrap().scene.seed, 1);
        assert!(matches!(load("benches", "bush").unwrap_err(), RobotConfigError::Toml { .. }));
    }
}
