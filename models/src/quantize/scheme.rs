//! Which number format each weight of a packed model has: a scheme by name, or one with rules of its own.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::SchemeError;
use crate::checkpoint::WeightFormat;
use crate::graph::params::{Param, ParamId, ParamTable, Role};
use crate::io::FileError;

/// Groups that a W4 weight may have.
pub const GROUPS: [u32; 3] = [32, 64, 128];
/// The 4-bit format of the named schemes.
pub const W4: WeightFormat = WeightFormat::W4 { group: 32, minima: true };

/// A scheme that has a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Named {
    /// Every weight in f16.
    #[default]
    F16,
    /// Attention, MLPs, towers and projectors in W8.
    W8,
    /// The experts' MLPs in W4, the rest as in `w8`.
    W4,
    /// All of those in W4.
    W4All,
}

impl Named {
    /// Every one.
    pub const ALL: [Named; 4] = [Named::F16, Named::W8, Named::W4, Named::W4All];

    /// Its name, as `FromStr` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Named::F16 => "f16",
            Named::W8 => "w8",
            Named::W4 => "w4",
            Named::W4All => "w4-all",
        }
    }

    /// The format of a weight of this name, before it is asked whether it can have it.
    fn of(self, param: &Param) -> Target {
        match (self, Kind::of(param)) {
            (_, Kind::Other) => Target::AsIs,
            (Named::F16, _) => Target::To(WeightFormat::F16),
            (_, Kind::Small) => Target::Half,
            (Named::W4, Kind::Mlp) | (Named::W4All, _) => Target::To(W4),
            (_, _) => Target::To(WeightFormat::W8),
        }
    }
}

impl FromStr for Named {
    type Err = SchemeError;

    fn from_str(name: &str) -> Result<Named, SchemeError> {
        let found = Named::ALL.into_iter().find(|n| n.name() == name);
        found.ok_or_else(|| SchemeError::Unknown { found: name.to_owned() })
    }
}

/// The class of a weight in the named schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Gate, up and down projection of an expert.
    Mlp,
    /// Another large matrix: attention, towers, projectors, conditioned norms.
    Large,
    /// Patch embedding, state, action and time layers, heads, convolutions, the embedding table: little, or not resident.
    Small,
    /// Not a weight: biases, norms, position embeddings, tensors that inference does not read.
    Other,
}

impl Kind {
    fn of(param: &Param) -> Kind {
        let name = param.name.as_str();
        let begins = |part: &str| name.starts_with(part);
        match param.role {
            Role::Matrix if begins("joint_model.") && name.contains(".mlp.") => Kind::Mlp,
            Role::Matrix if ["joint_model.", "multi_modal_projector.", "depth_in_proj."].into_iter().any(begins) => {
                Kind::Large
            }
            Role::Matrix if name.contains(".encoder.layer") => Kind::Large,
            Role::Matrix | Role::Kernel => Kind::Small,
            Role::Host if is_table(param) => Kind::Small,
            Role::Host | Role::Vector | Role::Unused => Kind::Other,
        }
    }
}

/// Whether it is the text embedding table.
fn is_table(param: &Param) -> bool {
    param.name == "embed_tokens.weight"
}

/// The format that a weight gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// As the source has it.
    AsIs,
    /// As the source has it, if that is of 16 bits; else f16.
    Half,
    /// This one.
    To(WeightFormat),
}

impl Target {
    /// The format, for a source in `source`.
    pub fn format(self, source: WeightFormat) -> WeightFormat {
        match self {
            Target::To(format) => format,
            Target::Half if source == WeightFormat::F32 => WeightFormat::F16,
            Target::AsIs | Target::Half => source,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AsIs => f.write_str("as in the source"),
            Target::Half => f.write_str("16 bits"),
            Target::To(format) => format.fmt(f),
        }
    }
}

/// Formats by parameter.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// By [`ParamId`].
    pub targets: Vec<Target>,
    /// Weights that a named scheme would have in W4 and whose rows no group divides: they are W8.
    pub fallbacks: Vec<ParamId>,
}

/// A scheme. Weights that no rule names have the base's format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// For weights that no rule names.
    #[serde(default)]
    pub base: Named,
    /// Rules, none of which names a weight that another names.
    #[serde(default, rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// The format of some weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Patterns of Fathom's names, in which `*` stands for any characters.
    pub tensors: Vec<String>,
    /// Patterns of those that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// `f32`, `f16`, `bf16`, `w8` or `w4`.
    pub format: String,
    /// Of W4: [`GROUPS`]; 32 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Of W4: whether groups have a minimum besides a scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minima: Option<bool>,
}

impl From<Named> for Scheme {
    fn from(base: Named) -> Scheme {
        Scheme { base, rules: Vec::new() }
    }
}

impl Scheme {
    /// The scheme of that name, or else in that TOML file.
    ///
    /// # Errors
    /// [`SchemeError::Unknown`], [`SchemeError::File`], [`SchemeError::Toml`], [`SchemeError::Format`].
    pub fn open(name: &str) -> Result<Scheme, SchemeError> {
        let path = Path::new(name);
        match name.parse::<Named>() {
            Ok(named) => return Ok(named.into()),
            Err(unknown) if !path.exists() => return Err(unknown),
            Err(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(FileError::io(path))?;
        let scheme: Scheme = toml::from_str(&text)
            .map_err(|source| SchemeError::Toml { path: path.to_owned(), source: Box::new(source) })?;
        scheme.rules.iter().try_for_each(|rule| rule.weight_format().map(|_| ()))?;
        Ok(scheme)
    }

    /// The format of every parameter of `table`.
    ///
    /// # Errors
    /// [`SchemeError`] for a pattern that names no weight, a weight that two rules name, and a format that a weight, or
    /// the layer that reads it beside others, cannot have.
    pub fn assign(&self, table: &ParamTable) -> Result<Assignment, SchemeError> {
        let weights: Vec<&Param> = table.params.iter().filter(|p| Kind::of(p) != Kind::Other).collect();
        for rule in &self.rules {
            for pattern in rule.tensors.iter().chain(&rule.except) {
                if !weights.iter().any(|p| fits(pattern, &p.name)) {
                    let such_as = weights.last().map(|p| p.name.clone()).unwrap_or_default();
                    return Err(SchemeError::NoTensor { rule: rule.to_string(), pattern: pattern.clone(), such_as });
                }
            }
        }
        let (mut targets, mut fallbacks) = (Vec::with_capacity(table.params.len()), Vec::new());
        for (i, param) in table.params.iter().enumerate() {
            let id = ParamId(i as u32);
            let mut rules = self.rules.iter().filter(|r| Kind::of(param) != Kind::Other && r.names(&param.name));
            targets.push(match (rules.next(), rules.next()) {
                (Some(first), Some(second)) => {
                    let rules = [first, second].map(ToString::to_string);
                    return Err(SchemeError::TwoRules { tensor: param.name.clone(), rules });
                }
                (Some(rule), None) => {
                    let format = rule.weight_format()?;
                    rule.check(param, format, &edges(table, id))?;
                    Target::To(format)
                }
                (None, _) => match self.base.of(param) {
                    Target::To(WeightFormat::W4 { group, .. }) if !divides(group, &edges(table, id)) => {
                        fallbacks.push(id);
                        Target::To(WeightFormat::W8)
                    }
                    target => target,
                },
            });
        }
        check_stacks(table, &targets)?;
        Ok(Assignment { targets, fallbacks })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.name())?;
        match self.rules.len() {
            0 => Ok(()),
            n => write!(f, " and {n} rules"),
        }
    }
}

impl Rule {
    /// The format that it gives.
    ///
    /// # Errors
    /// [`SchemeError::Format`].
    pub fn weight_format(&self) -> Result<WeightFormat, SchemeError> {
        let wrong = |field, expected: String, found: String| {
            Err(SchemeError::Format { rule: self.to_string(), field, expected, found })
        };
        let format = match self.format.as_str() {
            "f32" => WeightFormat::F32,
            "f16" => WeightFormat::F16,
            "bf16" => WeightFormat::Bf16,
            "w8" => WeightFormat::W8,
            "w4" => {
                let group = self.group.unwrap_or(32);
                if !GROUPS.contains(&group) {
                    return wrong("group", format!("one of {GROUPS:?}"), group.to_string());
                }
                return Ok(WeightFormat::W4 { group, minima: self.minima.unwrap_or(false) });
            }
            other => return wrong("format", "f32, f16, bf16, w8 or w4".to_owned(), format!("{other:?}")),
        };
        match (self.group, self.minima) {
            (Some(group), _) => wrong("group", "none, which only w4 has".to_owned(), group.to_string()),
            (None, Some(minima)) => wrong("minima", "none, which only w4 has".to_owned(), minima.to_string()),
            (None, None) => Ok(format),
        }
    }

    fn names(&self, tensor: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| fits(p, tensor));
        any(&self.tensors) && !any(&self.except)
    }

    fn check(&self, param: &Param, format: WeightFormat, edges: &[usize]) -> Result<(), SchemeError> {
        let (rule, tensor) = (self.to_string(), param.name.clone());
        let what = match param.role {
            _ if format.is_float() => return Ok(()),
            Role::Kernel => "a convolution",
            Role::Host => "the embedding table",
            // A patch embedding: the families read sizes from its shape.
            _ if param.shape.iter().skip(2).any(|n| *n != 1) => "a patch embedding",
            _ => {
                return match format {
                    WeightFormat::W4 { group, .. } if !divides(group, edges) => {
                        let columns = edges.iter().find(|c| !c.is_multiple_of(group as usize));
                        Err(SchemeError::Group { rule, tensor, columns: columns.copied().unwrap_or(0), group })
                    }
                    _ => Ok(()),
                };
            }
        };
        Err(SchemeError::Misfit { rule, tensor, what, found: format })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} = {}", self.tensors.join(" "), self.format)
    }
}

/// Where rows of a weight begin and end for the layers that read it.
fn edges(table: &ParamTable, id: ParamId) -> Vec<usize> {
    let shape = table.params.get(id.0 as usize).map_or(&[][..], |p| &p.shape);
    let stacks = table.stacks.iter().filter(|s| s.parts.contains(&id));
    let columns = stacks.flat_map(|s| [s.columns.start, s.columns.end]);
    columns.chain([shape.iter().skip(1).product()]).collect()
}

fn divides(group: u32, edges: &[usize]) -> bool {
    edges.iter().all(|c| c.is_multiple_of(group as usize))
}

/// Parts of one stack have one format: else a layer would read them widened to f32.
fn check_stacks(table: &ParamTable, targets: &[Target]) -> Result<(), SchemeError> {
    let named = |id: ParamId| {
        let (param, target) = (table.params.get(id.0 as usize)?, targets.get(id.0 as usize)?);
        Some((param.name.clone(), *target))
    };
    for stack in &table.stacks {
        let mut parts = stack.parts.iter().filter_map(|id| named(*id));
        let Some(first) = parts.next() else { continue };
        if let Some(second) = parts.find(|second| second.1 != first.1) {
            return Err(SchemeError::Apart { first, second });
        }
    }
    Ok(())
}

/// Whether `name` is `pattern`, in which each `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    name.char_indices().map(|(i, _)| i).chain([name.len()]).any(|i| fits(rest, name.get(i..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::depthvla::Model;
    use crate::nets::presets;

    #[test]
    fn patterns() {
        for (pattern, name, fit) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("*", "", true),
            ("*a*a*", "aa", true),
            ("*a*a*", "a", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    /// The named schemes at the paper's sizes, by what they promise.
    #[test]
    fn named_schemes_at_the_papers_sizes() {
        let model = Model::new(presets::depthvla()).expect("valid");
        let of = |named: Named, name: &str| {
            let assignment = Scheme::from(named).assign(&model.params).expect("it fits");
            let i = model.params.params.iter().position(|p| p.name == name).expect("a parameter");
            assignment.targets[i]
        };
        let (mlp, attention) = (
            "joint_model.mixtures.action.layers.3.mlp.down_proj.weight",
            "joint_model.mixtures.vlm.layers.3.self_attn.q_proj.weight",
        );
        let (siglip, small) =
            ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "action_encoder.linear_1.weight");
        let w8 = Target::To(WeightFormat::W8);
        assert_eq!([mlp, attention, siglip].map(|n| of(Named::W8, n)), [w8; 3]);
        assert_eq!([mlp, attention, siglip].map(|n| of(Named::W4, n)), [Target::To(W4), w8, w8]);
        assert_eq!([mlp, attention, siglip].map(|n| of(Named::W4All, n)), [Target::To(W4); 3]);
        assert_eq!([mlp, attention, small].map(|n| of(Named::F16, n)), [Target::To(WeightFormat::F16); 3]);
        assert_eq!([small, "embed_tokens.weight"].map(|n| of(Named::W4All, n)), [Target::Half; 2]);
        assert_eq!(of(Named::F16, "vision_tower.vision_model.post_layernorm.weight"), Target::AsIs);
        // 4304 = 16 · 269: no group divides the rows of SigLIP's second MLP layer.
        let all = Scheme::from(Named::W4All).assign(&model.params).expect("it fits");
        let names: Vec<&str> =
            all.fallbacks.iter().map(|id| model.params.params[id.0 as usize].name.as_str()).collect();
        assert_eq!(names.len(), 27, "{names:?}");
        assert!(names.iter().all(|n| n.ends_with("mlp.fc2.weight")), "{names:?}");
    }

    fn assign(toml: &str) -> Result<Assignment, SchemeError> {
        let scheme: Scheme = toml::from_str(toml).expect("valid TOML");
        scheme.assign(&Model::new(presets::depthvla()).expect("valid").params)
    }

    fn error(toml: &str) -> String {
        assign(toml).expect_err("it must not fit").to_string()
    }

    #[test]
    fn rules_that_fit() {
        let both = r#"
            base = "w4"
            [[rule]]
            tensors = ["vision_tower.*"]
            except = ["*.patch_embedding.weight", "*.mlp.fc2.weight"]
            format = "w4"
            group = 128
            minima = true
            [[rule]]
            tensors = ["embed_tokens.weight", "*.patch_embedding.weight"]
            format = "f32"
        "#;
        let assignment = assign(both).expect("it fits");
        let count = |target| assignment.targets.iter().filter(|t| **t == target).count();
        assert_eq!(count(Target::To(WeightFormat::W4 { group: 128, minima: true })), 27 * 5);
        assert_eq!(count(Target::To(WeightFormat::F32)), 2);
    }

    #[test]
    fn rules_that_do_not_fit_say_why() {
        let rule = |keys: &str| format!("[[rule]]\n{keys}\n");
        for (keys, parts) in [
            ("tensors = [\"joint.*\"]\nformat = \"w8\"", ["joint.*", "names no weight", "action_decoder"]),
            ("tensors = [\"*layer_norm1*\"]\nformat = \"w8\"", ["layer_norm1", "names no weight", ""]),
            ("tensors = [\"*\"]\nformat = \"int3\"", ["format", "w8 or w4", "int3"]),
            ("tensors = [\"*\"]\nformat = \"w4\"\ngroup = 48", ["group", "[32, 64, 128]", "found 48"]),
            ("tensors = [\"*\"]\nformat = \"w8\"\ngroup = 32", ["group", "only w4", "32"]),
            ("tensors = [\"*.fc2.weight\"]\nformat = \"w4\"", ["0.mlp.fc2.weight", "4304 columns", "found 32"]),
            ("tensors = [\"vision_tower.*\"]\nformat = \"w8\"", ["patch_embedding", "f32, f16 or bf16", "w8"]),
            ("tensors = [\"embed*\"]\nformat = \"w8\"", ["embed_tokens", "the embedding table", "w8"]),
            ("tensors = [\"*vlm*q_proj*\"]\nformat = \"w8\"", ["q_proj", "k_proj", "one layer reads both"]),
        ] {
            let error = error(&rule(keys));
            assert!(parts.iter().all(|part| error.contains(part)), "{keys}: {error}");
        }
        let twice = rule("tensors = [\"*mlp*\"]\nexcept = [\"*fc2*\"]\nformat = \"w4\"")
            + &rule("tensors = [\"*down_proj*\"]\nformat = \"w8\"");
        let error = error(&twice);
        assert!(
            error.contains("two rules name it") && error.contains("down_proj") && error.contains("*mlp*"),
            "{error}"
        );
    }
}
