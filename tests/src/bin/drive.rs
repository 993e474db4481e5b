//! A host that drives the emulated arm for ever, to be killed or stopped: `drive DEVICE`.

use std::time::{Duration, Instant};

use fathom::link::{ActionChunk, Link, LinkError, Start};
use fathom_tests::emulated::{ARM, sweep};
use firmware_bridge::message::{Interpolation, Reason};

const WAIT: Duration = Duration::from_secs(30);

fn main() -> Result<(), LinkError> {
    let device = std::env::args().nth(1).unwrap_or_default();
    let mut link = Link::open(&device, 1_000_000)?;
    link.hello(&ARM, WAIT)?;
    let armed = Instant::now();
    loop {
        let sequence = link.arm()?;
        if link.wait_ack(sequence, WAIT)?.reason == Reason::Ok || armed.elapsed() > WAIT {
            break;
        }
        let clear = link.clear_fault()?;
        link.wait_ack(clear, WAIT)?;
    }
    let path = sweep(60);
    let mut id = 0;
    let mut sent: Option<Instant> = None;
    loop {
        if sent.is_none_or(|at| at.elapsed() > Duration::from_millis(2500)) {
            sent = Some(Instant::now());
            id += 1;
            let chunk = ActionChunk {
                id,
                start: Start::Now,
                period_us: 50_000,
                validity_us: 3_000_000,
                interpolation: Interpolation::Hermite,
                positions: &path,
            };
            link.send_chunk(&chunk)?;
        }
        link.heartbeat()?;
        while link.poll().is_some() {}
        std::thread::sleep(Duration::from_millis(40));
    }
}
