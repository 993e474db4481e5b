//! Where the milliseconds go: what the loop tells of itself, its statistics, the ring for whoever looks on, and what the
//! service manager is told.

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
