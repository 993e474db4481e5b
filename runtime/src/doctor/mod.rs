//! Examines a computer and a robot before it runs: one finding for each part, with the remedy where something is amiss.
//!
//! Nothing is armed, and no chunk is sent. [`System`] reads the computer below a root directory; [`examine`] opens the parts of a
//! `robot.toml` one after the other and goes on after a failure.

use std::fmt;

use serde::Serialize;

mod drivers;
mod robot;
mod system;

pub use robot::{Options, examine};
pub use system::System;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The robot runs, though not as well as it could.
    Warning,
    /// The robot does not start.
    Failure,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failure => "failure",
        })
    }
}

/// One part, and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part: `configuration`, `model`, `GPU`, `memory`, `camera base` and so on.
    pub part: String,
    /// How much it matters.
    pub level: Level,
    /// Its state.
    pub found: String,
    /// The remedy, if one is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(part: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { part: part.into(), level: Level::Ok, found: found.into(), remedy: None }
    }

    fn warning(part: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { part: part.into(), level: Level::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// Errors name what to do themselves; `remedy` adds to them.
    fn failure(part: impl Into<String>, found: impl Into<String>, remedy: Option<String>) -> Finding {
        Finding { part: part.into(), level: Level::Failure, found: found.into(), remedy }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.found.lines();
        write!(f, "{:8} {:16} {}", self.level, self.part, lines.next().unwrap_or_default())?;
        let indent = " ".repeat(26);
        lines.try_for_each(|line| write!(f, "\n{indent}{line}"))?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{indent}→ {remedy}"),
            None => Ok(()),
        }
    }
}
