//! Which kind of checkpoint this is, by what it calls itself and by its tensors' names: for the errors of one that does
//! not load.

use std::collections::BTreeSet;

use super::{Family, paligemma};
use crate::config::{ModelConfig, TimeConditioning};
use crate::depthvla::Model;
use crate::presets;

/// A kind that is known by how its tensors' names begin, most of them no [`Family`].
struct Other {
    family: Option<Family>,
    what: &'static str,
    /// What `config.json` calls it.
    kinds: &'static [&'static str],
    /// How its tensors' names begin.
    names: &'static [&'static str],
    /// What can be done with it.
    advice: &'static str,
}

const NOT_SUPPORTED: &str = "not supported";

const fn other(what: &'static str, kinds: &'static [&'static str], names: &'static [&'static str]) -> Other {
    Other { family: None, what, kinds, names, advice: NOT_SUPPORTED }
}

const OTHERS: [Other; 19] = [
    other("transformers' own PI0", &["pi0"], &[]),
    other("DINOv2 with registers", &["dinov2_with_registers"], &["embeddings.register_tokens"]),
    other("SmolVLA", &["smolvla"], &["model.vlm_with_expert."]),
    other("pi0-FAST", &["pi0_fast", "pi0fast"], &[]),
    other("ACT", &["act"], &["model.vae_encoder", "model.encoder.", "model.decoder.", "model.backbone."]),
    other("Diffusion Policy", &["diffusion", "multi_task_dit"], &["diffusion."]),
    other("VQ-BeT", &["vqbet"], &["vqbet."]),
    other("TD-MPC", &["tdmpc"], &[]),
    other("GR00T", &["groot", "gr00t_n1", "gr00t_n1_5", "Gr00tN1d7"], &["_groot_model."]),
    other("OpenVLA", &["openvla", "prismatic"], &["vision_backbone.", "language_model.model.layers.", "projector.fc"]),
    other("X-VLA", &["xvla"], &[]),
    other("WALL-X", &["wall_x"], &[]),
    other("EO-1", &["eo1"], &[]),
    other("EVO-1", &["evo1"], &[]),
    other("MolmoAct2", &["molmoact2"], &[]),
    other("LingBot-VA", &["lingbot_va"], &[]),
    other("VLA-JEPA", &["vla_jepa"], &[]),
    Other {
        family: Some(Family::DepthAnything),
        what: "Depth Anything V2",
        kinds: &[],
        names: &["backbone.", "neck.", "head.conv"],
        advice: "run by `fathom depth`",
    },
    Other {
        family: Some(Family::Dinov2),
        what: "DINOv2",
        kinds: &[],
        names: &["embeddings.", "encoder.layer."],
        advice: "an encoder for `fathom compose --depth`",
    },
];

/// What is known of a kind that `config.json` names and that is no family.
pub(super) fn known(kind: &str) -> Option<String> {
    let found = OTHERS.iter().find(|o| o.kinds.contains(&kind))?;
    Some(format!("known: {}, {}", found.what, found.advice))
}

/// The kind whose tensors have most of these names; of two families the one that lacks fewer.
pub(super) fn nearest(names: &[String]) -> Option<Nearest> {
    let forms: Vec<String> = names.iter().map(|name| form(name)).collect();
    let families = Family::ALL.into_iter().filter_map(|family| {
        let own = family_forms(family);
        let fitting = forms.iter().filter(|f| own.contains(*f)).count();
        let lacking = own.iter().filter(|f| !forms.contains(f)).count();
        let advice = String::new();
        (fitting > 0).then(|| Nearest { family: Some(family), what: family.name(), advice, fitting, lacking })
    });
    let begins = |o: &Other, name: &String| o.names.iter().any(|n| name.starts_with(n));
    let others = OTHERS.iter().filter_map(|o| {
        let fitting = names.iter().filter(|name| begins(o, name)).count();
        let advice = format!(" ({})", o.advice);
        (fitting > 0).then_some(Nearest { family: o.family, what: o.what, advice, fitting, lacking: usize::MAX })
    });
    families.chain(others).min_by_key(|n| (std::cmp::Reverse(n.fitting), n.lacking))
}

/// The kind of checkpoint that tensors' names fit best.
#[derive(Debug)]
pub(super) struct Nearest {
    /// `None` for one that is known and is no family.
    pub(super) family: Option<Family>,
    what: &'static str,
    advice: String,
    fitting: usize,
    lacking: usize,
}

impl Nearest {
    /// For an error; `of` is the number of all tensors.
    pub(super) fn text(&self, of: usize) -> String {
        format!("{}{}: {} of {of} tensors have its names", self.what, self.advice, self.fitting)
    }
}

/// A name with its numbers left out, so that layers count alike.
fn form(name: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if number(part) { "#" } else { part }).collect::<Vec<_>>().join(".")
}

/// Forms of the names of a family's tensors.
fn family_forms(family: Family) -> BTreeSet<String> {
    let depth = presets::small();
    let pi0 = ModelConfig { depth: None, ..presets::small() };
    let pi05 = ModelConfig { time_conditioning: TimeConditioning::AdaRms, state_token: false, ..pi0.clone() };
    let two_layers = ModelConfig { action_head_layers: 2, ..pi0.clone() };
    let configs = match family {
        Family::DepthVla => vec![depth],
        Family::LerobotPi0 => vec![pi0],
        Family::LerobotPi05 => vec![pi05],
        Family::Openpi => vec![pi0, pi05],
        Family::OpenPiZero => vec![pi0],
        Family::Galaxea => vec![two_layers],
        Family::PaliGemma => vec![pi0],
        // Theirs are among the others.
        Family::Dinov2 | Family::DepthAnything => Vec::new(),
    };
    let map = family.names();
    let names = |own: &str| -> Vec<String> {
        let mut names = if family == Family::PaliGemma && !paligemma::has(own) { Vec::new() } else { (map.names)(own) };
        // lerobot has a prefix where openpi has none.
        match family {
            Family::LerobotPi0 | Family::LerobotPi05 => names.retain(|n| n.starts_with("model.")),
            Family::Openpi => names.retain(|n| !n.starts_with("model.")),
            _ => {}
        }
        names
    };
    let params = configs.into_iter().filter_map(|c| Model::new(c).ok()).flat_map(|m| m.params.params);
    params.flat_map(|p| names(&p.name)).map(|name| form(&name)).collect()
}
