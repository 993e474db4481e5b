//! The source tree: its layout, its dependencies, and the inputs that fuzzers found.

mod dependencies;
mod fuzz;
mod tidy;
