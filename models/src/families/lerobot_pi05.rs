//! lerobot's pi0.5, as `save_pretrained` writes it.

use super::description::{Family, Form, Mark};
use super::shared::lerobot;
use crate::nets::config::{PromptFormat, TimeConditioning};

/// lerobot's pi0.5.
pub static FAMILY: Family = Family {
    name: "lerobot-pi05",
    mark: Mark::Type("pi05"),
    describe: |directory| lerobot::describe(directory, TimeConditioning::AdaRms, PromptFormat::TaskAndState),
    forms: &[Form::Pi05],
    ..lerobot::COMMON
};
