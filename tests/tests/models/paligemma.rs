//! The names that transformers' versions gave a PaliGemma's tensors.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom_models::ModelError;
use fathom_models::families::compose::{Sources, compose};
use fathom_models::families::dinov2::Encoder;
use fathom_models::families::summary::Summary;
use fathom_models::families::{self};
use fathom_tests::tensors::{Tensors, copy_golden, dinov2};
use fathom_tests::{Golden, path};
use serde_json::json;

use super::families::{LEROBOT, actions, edit, expected, load};

/// Which of the levels that transformers' names of a PaliGemma have had there are: `model` outside, `model` within the
/// language model, `vision_model` within the vision tower.
type Levels = [bool; 3];
/// As on the hub, as transformers 5.5 writes it, as 4.53 has it in memory, and as 5.5 has.
const LEVELS: [Levels; 4] = [[false, true, true], [true, true, true], [true, false, true], [true, false, false]];

/// A name that lerobot's golden has below `paligemma.model.`, with these levels.
fn with_levels(rest: &str, [outside, language, vision]: Levels) -> String {
    let inside = if language { rest.replace("language_model.", "language_model.model.") } else { rest.to_owned() };
    let inside = if vision { inside } else { inside.replace("vision_tower.vision_model.", "vision_tower.") };
    format!("{}{inside}", if outside { "model." } else { "" })
}

const PALIGEMMA: &str = "model.paligemma_with_expert.paligemma.";

#[test]
fn a_pi0_of_any_transformers_gives_the_same_bits() {
    let expected = expected(LEROBOT);
    for levels in LEVELS {
        let dir = copy_golden(LEROBOT);
        let file = dir.path().join("model.safetensors");
        let mut tensors = Tensors::read(&file);
        for name in tensors.0.keys().cloned().collect::<Vec<_>>() {
            if let Some(rest) = name.strip_prefix(&format!("{PALIGEMMA}model.")) {
                tensors.rename(&name, &format!("{PALIGEMMA}{}", with_levels(rest, levels)));
            }
        }
        tensors.write(&file);
        assert!(actions(dir.path(), &load(dir.path())) == expected, "{levels:?}: the same bits");
        // A missing tensor is named as its neighbours are.
        let missing = format!("{PALIGEMMA}{}", with_levels("language_model.layers.1.mlp.up_proj.weight", levels));
        tensors.0.remove(&missing).expect("a tensor to remove");
        tensors.write(&file);
        let error = families::load(dir.path()).expect_err("a tensor is missing").to_string();
        assert!(error.contains(&format!("missing     {missing} [128, 64]")), "{error}");
    }
}

/// The golden pi0's VLM as a PaliGemma.
fn as_paligemma(levels: Levels) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tensors = Tensors::default();
    for (name, tensor) in Tensors::read(&path("golden").join(LEROBOT).join("model.safetensors")).0 {
        let Some(rest) = name.strip_prefix(&format!("{PALIGEMMA}model.")) else { continue };
        tensors.0.insert(with_levels(rest, levels), tensor);
    }
    tensors.write(&dir.path().join("model.safetensors"));
    let config = json!({"model_type": "paligemma", "vision_config": {"num_attention_heads": 4},
                        "text_config": {"model_type": "gemma", "num_attention_heads": 8, "num_key_value_heads": 1}});
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("the file is written");
    dir
}

#[test]
fn a_paligemma_is_the_base_of_a_mixture() {
    let pi0 = Golden::load(LEROBOT).loaded;
    let (folder, dinov2) = (tempfile::tempdir().expect("a folder"), dinov2());
    let encoder = Encoder::load(dinov2.path()).expect("the encoder");
    for levels in LEVELS {
        let dir = as_paligemma(levels);
        let error = families::load(dir.path()).expect_err("it gives no actions");
        assert!(matches!(error, ModelError::NoActions { family: "paligemma", .. }), "{error}");
        assert!(error.to_string().contains("fathom compose --paligemma"), "{error}");
        let base = families::load_base(dir.path(), None).expect("it is a base");
        let (own, other) = (&base.model.config, &pi0.model.config);
        assert_eq!((own.vlm, own.vision, own.layers), (other.vlm, other.vision, other.layers));
        let summary = Summary::read(dir.path(), None).expect("it is described");
        let Summary::Policy(summary) = summary else { panic!("no policy: {summary}") };
        assert!(summary.parts.iter().all(|p| p.name != "action expert"), "{summary}");

        let output = folder.path().join(format!("composed {levels:?}"));
        let views = ["base".to_owned()];
        let sources = Sources { base: &base, encoder: &encoder, given: None, views: &views, seed: 1 };
        let origins = compose(&sources, &output).expect("it composes");
        let composed = load(&output);
        assert_eq!(
            composed.weights.skipped().len(),
            base.weights.skipped().len(),
            "the VLM came along, last layer and all"
        );
        assert_eq!(origins.encoder, encoder.params.params.len() - 1, "all but mask_token");
        let id = composed.model.embed_tokens;
        assert_eq!(composed.weights.rows(id, own.vlm.width, &[5]).expect("a row"), {
            pi0.weights.rows(pi0.model.embed_tokens, own.vlm.width, &[5]).expect("a row")
        });
    }
    let dir = as_paligemma(LEVELS[0]);
    edit(&dir.path().join("config.json"), |c| c["text_config"]["model_type"] = "gemma2".into());
    let error = families::load_base(dir.path(), None).expect_err("PaliGemma 2").to_string();
    assert!(error.contains("text_config.model_type: expected gemma, found gemma2"), "{error}");
}
