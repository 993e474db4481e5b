//! Which kind of checkpoint this is, by its own name and by its tensors' names: for the errors of one that does not load.

use std::collections::BTreeSet;

use super::{ALL, Family};
use crate::error::{ModelError, TensorProblem};
use crate::nets::depthvla::Model;

/// A kind that is known by how its tensors' names begin.
pub(super) struct Outline {
    pub(super) title: &'static str,
    /// How its tensors' names begin.
    pub(super) names: &'static [&'static str],
    /// Its use in Fathom.
    pub(super) advice: &'static str,
}

impl Outline {
    fn nearest(&self, family: Option<&'static Family>, names: &[String]) -> Option<Nearest> {
        let begins = |name: &&String| self.names.iter().any(|n| name.starts_with(n));
        let fitting = names.iter().filter(begins).count();
        let advice = format!(" ({})", self.advice);
        (fitting > 0).then_some(Nearest { family, title: self.title, advice, fitting, lacking: usize::MAX })
    }
}

/// A kind that is no [`Family`].
struct Other {
    /// Its names in `config.json`.
    kinds: &'static [&'static str],
    outline: Outline,
}

const fn other(title: &'static str, kinds: &'static [&'static str], names: &'static [&'static str]) -> Other {
    Other { kinds, outline: Outline { title, names, advice: "not supported" } }
}

const OTHERS: [Other; 17] = [
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
];

/// The description of a kind that `config.json` names and that is no family.
pub(super) fn known(kind: &str) -> Option<String> {
    let found = &OTHERS.iter().find(|o| o.kinds.contains(&kind))?.outline;
    Some(format!("known: {}, {}", found.title, found.advice))
}

/// The kind whose tensors have most of these names; of two families the one that lacks fewer.
pub(super) fn nearest(names: &[String]) -> Option<Nearest> {
    let forms: Vec<String> = names.iter().map(|name| form(name)).collect();
    let families = ALL.into_iter().filter_map(|family| {
        let own = family_forms(family);
        let fitting = forms.iter().filter(|f| own.contains(*f)).count();
        let lacking = own.iter().filter(|f| !forms.contains(f)).count();
        let (title, advice) = (family.name, String::new());
        (fitting > 0).then_some(Nearest { family: Some(family), title, advice, fitting, lacking })
    });
    let others = OTHERS.iter().filter_map(|o| o.outline.nearest(None, names));
    let outlined = ALL.into_iter().filter_map(|f| f.outline.as_ref()?.nearest(Some(f), names));
    families.chain(others).chain(outlined).min_by_key(|n| (std::cmp::Reverse(n.fitting), n.lacking))
}

/// Adds the family that the names of a checkpoint's tensors fit best, to an error of tensors that were taken for `family`'s.
pub(super) fn with_nearest(family: &Family, problem: ModelError, mut names: Vec<String>) -> ModelError {
    let ModelError::Tensors { problems, .. } = &problem else { return problem };
    let extra =
        problems.iter().find_map(|p| if let TensorProblem::Prefix { extra, .. } = p { Some(extra) } else { None });
    let mut changed = Vec::new();
    if let Some(extra) = extra {
        names.iter_mut().for_each(|name| *name = name.replacen(extra.as_str(), "", 1));
        changed.push(format!("without {extra:?}"));
    }
    if problems.iter().any(|p| matches!(p, TensorProblem::Quantised { .. })) {
        changed.push("before they were quantised".to_owned());
    }
    match nearest(&names).filter(|n| n.family != Some(family) || !changed.is_empty()) {
        Some(nearest) => {
            let changed = if changed.is_empty() { String::new() } else { format!(" ({})", changed.join(", ")) };
            let nearest = nearest.text(names.len()) + &changed;
            ModelError::OtherFamily { problem: Box::new(problem), nearest }
        }
        None => problem,
    }
}

/// The kind of checkpoint that tensors' names fit best.
#[derive(Debug)]
pub(super) struct Nearest {
    /// `None` for one that is no family.
    pub(super) family: Option<&'static Family>,
    title: &'static str,
    advice: String,
    fitting: usize,
    lacking: usize,
}

impl Nearest {
    /// For an error; `of` is the number of all tensors.
    pub(super) fn text(&self, of: usize) -> String {
        format!("{}{}: {} of {of} tensors have its names", self.title, self.advice, self.fitting)
    }
}

/// A name with its numbers left out, so that layers count alike.
fn form(name: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if number(part) { "#" } else { part }).collect::<Vec<_>>().join(".")
}

/// Forms of the names of a family's tensors.
fn family_forms(family: &Family) -> BTreeSet<String> {
    let models = family.forms.iter().filter_map(|form| Model::new(form.config()).ok());
    let params = models.flat_map(|m| m.params.params).filter(|p| (family.has)(&p.name));
    let names = params.flat_map(|p| (family.names)(&p.name)).filter(|name| (family.writes)(name));
    names.map(|name| form(&name)).collect()
}
