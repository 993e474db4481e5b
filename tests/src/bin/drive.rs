//! A host that drives the emulated arm for ever, to be killed or stopped: `drive DEVICE`.

use std::time::{Duration, Instant};

use fathom::link::{ActionChunk, Link, LinkError, LinkEvent, Start};
use fathom_tests::emulated::{ARM, sweep};
use firmware_bridge::message::{Interpolation, Mode};

const WAIT: Duration = Duration::from_secs(30);

fn main() -> Result<(), LinkError> {
    let device = std::env::args().nth(1).unwrap_or_default();
    let mut link = Link::open(&device, 1_000_000)?;
    link.hello(&ARM, WAIT)?;
    let path = sweep(60);
    let chunk = |id| ActionChunk {
        id,
        start: Start::Now,
        period_us: 50_000,
        validity_us: 3_000_000,
        interpolation: Interpolation::Hermite,
        positions: &path,
    };
    let (mut mode, mut id, mut due) = (Mode::Disarmed, 0, Instant::now());
    loop {
        let sent = match mode {
            // A busy machine kept this program from its heartbeats.
            Mode::Faulted(_) => link.clear_fault(),
            Mode::Disarmed => link.arm(),
            Mode::Holding | Mode::Active if Instant::now() >= due => {
                due = Instant::now() + Duration::from_millis(2500);
                id += 1;
                link.send_chunk(&chunk(id))
            }
            _ => link.heartbeat(),
        };
        match sent {
            Ok(_) | Err(LinkError::Backlog { .. }) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(Duration::from_millis(20));
        while let Some(event) = link.poll() {
            if let LinkEvent::State { state, .. } = event {
                if state.mode == Mode::Holding && mode == Mode::Disarmed {
                    due = Instant::now();
                }
                mode = state.mode;
            }
        }
    }
}
