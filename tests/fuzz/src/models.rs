//! The files of a model's directory.

use std::path::{Path, PathBuf};

/// A folder for the files of a target's input, kept for the process.
pub fn folder() -> &'static Path {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder")).path()
}

/// A golden model's directory.
pub fn golden(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("golden"), here.join("../golden")];
    places.iter().find(|place| place.exists()).expect("the goldens").join(name)
}

/// A folder of the process' own for `target`, with links to the golden lerobot's files but those of `without`.
fn linked(target: &str, without: &[&str]) -> PathBuf {
    let dir = folder().join(format!("{target}-{:?}", std::thread::current().id()));
    if !dir.exists() {
        std::fs::create_dir_all(&dir).expect("a folder");
        for entry in std::fs::read_dir(golden("pi0_lerobot")).expect("a golden") {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
            if !without.contains(&&*name.to_string_lossy()) {
                std::os::unix::fs::symlink(path.canonicalize().expect("there"), dir.join(name)).expect("a link");
            }
        }
    }
    dir
}

/// The bytes of a `model.safetensors`: every tensor that the loader lists can be read, and what is wrong with them as a pi0 is
/// told.
pub fn safetensors(data: &[u8]) {
    let dir = linked("weights", &["model.safetensors"]);
    let path = dir.join("model.safetensors");
    std::fs::write(&path, data).expect("written");
    match fathom_models::families::load_base(&dir, None) {
        Ok(loaded) => loaded.model.config.validate().expect("what loaded is a model"),
        // It names the file, or the field of the configuration.
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&*dir.to_string_lossy()) || text.starts_with("configuration: "), "{text}");
        }
    }
    let Ok(checkpoint) = fathom_models::checkpoint::Checkpoint::open(&path) else { return };
    for name in checkpoint.names() {
        let shape = checkpoint.shape(name).expect("listed");
        let (_, bytes) = checkpoint.tensor(name).expect("listed");
        assert!(bytes.len() <= data.len());
        if shape.iter().copied().fold(1_usize, usize::saturating_mul) < 1 << 16 {
            let _ = checkpoint.f32(name);
        }
    }
}

/// `config.json`, `policy_preprocessor.json` and `policy_postprocessor.json` of a lerobot directory that is whole besides,
/// with a zero byte between them; one that is not there has no file. What loads has lengths that fit each other, views of
/// different names, and statistics that are finite.
pub fn lerobot_config(data: &[u8]) {
    const FILES: [&str; 3] = ["config.json", "policy_preprocessor.json", "policy_postprocessor.json"];
    let dir = linked("lerobot", &FILES);
    let mut texts = data.splitn(FILES.len(), |byte| *byte == 0);
    for file in FILES {
        match texts.next() {
            Some(text) => std::fs::write(dir.join(file), text).expect("written"),
            None => drop(std::fs::remove_file(dir.join(file))),
        }
    }
    match fathom_models::families::load_base(&dir, None) {
        Ok(loaded) => {
            let (config, normalization) = (&loaded.model.config, &loaded.normalization);
            config.validate().expect("what loaded is a model");
            assert!(*loaded.state_dims.start() >= 1 && *loaded.state_dims.end() <= config.state_dim);
            assert!(loaded.action_dim >= 1 && loaded.action_dim <= config.action_dim);
            for affine in [&normalization.state, &normalization.action] {
                assert!(affine.offset.iter().chain(&affine.scale).all(|value| value.is_finite()));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
