//! lerobot's pi0, as `save_pretrained` writes it.

use super::description::{Family, Form, Mark};
use super::shared::lerobot;
use crate::nets::config::{PromptFormat, TimeConditioning};

/// lerobot's pi0.
pub static FAMILY: Family = Family {
    name: "lerobot-pi0",
    mark: Mark::Type("pi0"),
    describe: |directory| lerobot::describe(directory, TimeConditioning::Token, PromptFormat::Lerobot),
    forms: &[Form::Pi0],
    ..lerobot::COMMON
};
