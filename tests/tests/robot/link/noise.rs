//! The link over a line which flips bits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fathom::link::{Link, LinkError, LinkEvent};
use firmware_bridge::frame::{Decoder, Header, MAX_FRAME, encode};
use firmware_bridge::message::{Chunk, Interpolation, Message, Positions, Reason, START_NOW};
use firmware_bridge::sim::Sim;

use super::{NAMES, WAIT, chunk, config, settled, until};

/// Flips bits, the same ones in each run.
struct Noise(u64);

impl Noise {
    fn draw(&mut self) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Flips each bit with 1 %; whether one was.
    fn corrupt(&mut self, bytes: &mut [u8]) -> bool {
        let mut hit = false;
        for byte in bytes {
            for bit in 0..8 {
                if self.draw().is_multiple_of(100) {
                    *byte ^= 1 << bit;
                    hit = true;
                }
            }
        }
        hit
    }
}

/// Ten thousand frames over a line that flips 1 % of the bits: what is accepted was sent so, all
/// else is counted, and the first frame after the noise arrives.
#[test]
fn a_line_that_flips_bits_is_survived() {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let mut decoder = Decoder::new();
    let mut wire = [0; MAX_FRAME];
    let (mut whole, mut accepted) = (0_u32, 0_u32);
    for sequence in 0..10_000_u32 {
        let positions = [sequence as f32 * 1e-4; 3];
        let message = Message::Chunk(Chunk {
            id: sequence,
            start_us: START_NOW,
            period_us: 1000,
            validity_us: 1000,
            interpolation: Interpolation::Linear,
            joints: 3,
            steps: 1,
            positions: Positions::Native(&positions),
        });
        // Also frames short enough that some arrive whole.
        let message = if sequence.is_multiple_of(2) { message } else { Message::Heartbeat };
        let header = Header::new(sequence, 9, u64::from(sequence));
        let length = encode(&header, &message, &mut wire).expect("fits");
        let bytes = &mut wire[..length];
        whole += u32::from(!noise.corrupt(bytes));
        for byte in bytes {
            if let Some(Ok(frame)) = decoder.feed(*byte) {
                assert_eq!((frame.header, frame.message), (header, message));
                accepted += 1;
            }
        }
    }
    let counters = decoder.counters();
    // A whole frame is lost only behind one whose end was hit.
    assert!(accepted <= whole && accepted * 10 > whole * 8, "{accepted} of {whole}");
    assert_eq!(counters.frames, accepted);
    assert!(counters.crc + counters.other_than_crc() > 5_000, "{counters:?}");
    let _ = decoder.feed(0);
    let length = encode(&Header::new(1, 9, 0), &Message::Stop, &mut wire).expect("fits");
    let last = wire[..length].iter().filter(|byte| matches!(decoder.feed(**byte), Some(Ok(_))));
    assert_eq!(last.count(), 1);
}

/// One direction of a serial line which flips bits while it is told to.
struct NoisyEnd {
    port: File,
    noise: Noise,
    noisy: Arc<AtomicBool>,
}

impl NoisyEnd {
    fn corrupt(&mut self, bytes: &mut [u8]) {
        if self.noisy.load(Ordering::Relaxed) {
            self.noise.corrupt(bytes);
        }
    }
}

impl Read for NoisyEnd {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.port.read(out)?;
        self.corrupt(&mut out[..count]);
        Ok(count)
    }
}

impl Write for NoisyEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = bytes.to_vec();
        self.corrupt(&mut sent);
        // The rest, should there be one, would be other bytes the next time.
        self.port.write_all(&sent)?;
        Ok(sent.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Host and controller with noise both ways: no move that was not sent, and all works again when
/// the noise ends.
#[test]
fn a_noisy_link_recovers() {
    fathom_contention::timed!();
    let sim = Sim::start(config()).expect("a pty");
    let noisy = Arc::new(AtomicBool::new(false));
    let port = File::options().read(true).write(true).open(sim.path()).expect("a pty");
    let writer = NoisyEnd { port: port.try_clone().expect("a clone"), noise: Noise(1), noisy: Arc::clone(&noisy) };
    let reader = NoisyEnd { port, noise: Noise(2), noisy: Arc::clone(&noisy) };
    let mut link = Link::over("noisy", reader, writer).expect("threads");
    link.hello(&NAMES, WAIT).expect("the same joints");
    let sequence = link.arm().expect("sent");
    assert_eq!(link.wait_ack(sequence, WAIT).expect("acked").reason, Reason::Ok);

    noisy.store(true, Ordering::Relaxed);
    let mut chunks = Vec::new();
    for round in 0..1000_u32 {
        let target = [0.1 * (round % 2) as f32, 0.5, 0.0];
        // The writer may lag behind on a busy machine.
        match link.send_chunk(&chunk(&target)) {
            Ok(sequence) => chunks.push(sequence),
            Err(LinkError::Backlog { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
        let at = sim.positions();
        assert!((-0.01..0.11).contains(&at[0]) && at[2].abs() < 0.01, "{at:?}");
        while let Some(event) = link.poll() {
            match event {
                LinkEvent::Ack { ack, .. } => assert!(chunks.contains(&ack.sequence), "{ack:?}"),
                LinkEvent::State { .. } | LinkEvent::Silent { .. } | LinkEvent::Restored => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let received = link.counters().received;
    assert!(received.crc + received.other_than_crc() > 0, "{received:?}");

    noisy.store(false, Ordering::Relaxed);
    link.hello(&NAMES, WAIT).expect("the link recovers");
    assert_eq!(settled(&mut link, Link::clear_fault), Reason::Ok);
    assert_eq!(settled(&mut link, Link::arm), Reason::Ok);
    link.send_chunk(&chunk(&[-0.3, 0.5, 0.0].repeat(60))).expect("sent");
    until(&mut link, true, |event| match event {
        LinkEvent::State { state, .. } => {
            assert!(state.crc_errors > 0, "{state:?}");
            (state.measured.as_slice()[0] < -0.29).then_some(())
        }
        _ => None,
    });
}
