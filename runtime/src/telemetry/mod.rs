//! Telemetry: the loop's events as spans and counters, their statistics, the ring in shared memory for other programs,
//! and notifications of the service manager.

mod event;
mod header;
mod memory;
mod notify;
mod ring;
mod stages;
mod writer;

pub use event::{Event, Kind, Track};
pub use header::{Header, RunInfo, SOFTWARE, Shapes};
pub use memory::Memory;
pub use notify::Notify;
pub use ring::{MAGIC, RingError, RingReader, RingWriter, VERSION};
pub use stages::{Stage, StageTable, table};
pub use writer::{EventWriter, counter, stage};
