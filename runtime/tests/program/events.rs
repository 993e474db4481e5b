//! The daemon's log in JSON (`--log-format json`), read as events.

use serde_json::Value;

/// An event of the log.
#[derive(Debug, Clone)]
pub(crate) struct LogEvent(Value);

impl LogEvent {
    /// The event of a line; `None` for a line that is no JSON object.
    pub(crate) fn of(line: &str) -> Option<LogEvent> {
        serde_json::from_str(line).ok().filter(Value::is_object).map(LogEvent)
    }

    /// All events of a log.
    pub(crate) fn all(log: &[u8]) -> Vec<LogEvent> {
        String::from_utf8_lossy(log).lines().filter_map(LogEvent::of).collect()
    }

    /// Whether it is of this kind: a `LoopEvent` in snake case, `failed`, or `controller_latched`.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.0["target"] == kind
    }

    /// Whether it has this field.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.0["fields"][name].is_null()
    }

    /// A field as text; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.0["fields"][name].as_str().unwrap_or_default()
    }

    /// Whether the loop's mode changed to `to`.
    pub(crate) fn is_change_to(&self, to: &str) -> bool {
        self.is("mode") && self.field("to") == to
    }

    /// Whether the loop's mode changed from `from` to `to`.
    pub(crate) fn is_change(&self, from: &str, to: &str) -> bool {
        self.is_change_to(to) && self.field("from") == from
    }
}

/// A name, and the events that it means.
type Condition<'a> = (&'a str, &'a dyn Fn(&LogEvent) -> bool);

/// Checks that events that meet the conditions happened in this order.
#[track_caller]
pub(crate) fn assert_order(events: &[LogEvent], conditions: &[Condition<'_>]) {
    let mut rest = events.iter();
    for (name, condition) in conditions {
        assert!(rest.any(condition), "no {name}, or not in this order: {events:#?}");
    }
}
