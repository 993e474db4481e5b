//! The subcommands: arguments in, library calls, text out.

pub(crate) mod clear_fault;
pub(crate) mod compose;
pub(crate) mod depth;
pub(crate) mod doctor;
mod gpu;
pub(crate) mod infer;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod plan;
pub(crate) mod replay;
pub(crate) mod run;
