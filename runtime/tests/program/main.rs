//! The program `fathom` as its user runs it. `FATHOM_RUN`, where set, is the wrapper that gives it its Vulkan driver.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod depth;
mod doctor;
mod events;
mod inference;
mod inspect;
mod numbers;
mod operation;
mod outputs;
mod run;
mod streams;
mod support;
