//! The fuzz targets over their corpus and over changed copies of it, and the frame decoder over random frames. The
//! fuzzer itself is run by `tools/fuzz`.
#![expect(clippy::expect_used, reason = "a test's helpers fail the test as its body does")]

use std::path::Path;

use firmware_bridge::PROTOCOL_VERSION;
use firmware_bridge::frame::{Decoder, Header, MAX_FRAME, encode};
use firmware_bridge::message::{Chunk, Interpolation, Message, Positions, START_NOW};

#[path = "../../fuzz/src/host.rs"]
#[expect(unreachable_pub, reason = "the fuzzer's crate exports them")]
mod host;
#[path = "../../fuzz/src/models.rs"]
#[expect(unreachable_pub, reason = "the fuzzer's crate exports them")]
mod models;
#[path = "../../fuzz/src/recording.rs"]
#[expect(unreachable_pub, reason = "the fuzzer's crate exports them")]
mod recording;
#[path = "../../fuzz/src/wire.rs"]
#[expect(unreachable_pub, reason = "the fuzzer's crate exports them")]
mod wire;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("frame", wire::frame),
    ("message", wire::message),
    ("safetensors", models::safetensors),
    ("config", host::config),
    ("lerobot_config", models::lerobot_config),
    ("picture", host::picture),
    ("jpeg", host::jpeg),
    ("exif", host::exif),
    ("recording", recording::recording),
];

/// xorshift64: the same numbers in each run.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read(path).expect("read")).collect()
}

/// What was found once is not found again, and 200 changed copies of each file are survived, too.
#[test]
fn the_corpus_and_what_is_near_it_is_survived() {
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "{name}");
        for file in &files {
            target(file);
            for _ in 0..200 {
                let mut changed = file.clone();
                for _ in 0..=draw.below(4) {
                    let at = draw.below(changed.len());
                    match draw.below(4) {
                        0 if !changed.is_empty() => changed[at] = draw.next() as u8,
                        1 if !changed.is_empty() => changed[at] ^= 1 << draw.below(8),
                        2 => changed.truncate(at),
                        _ => changed.insert(at, draw.next() as u8),
                    }
                }
                target(&changed);
            }
        }
    }
}

/// Frames of random bytes, of random bodies, and real frames with some random bytes in them: the decoder accepts none that was
/// not sent, and does not panic. `FATHOM_FRAMES=10000000` is the full run.
///
/// A frame of random bytes passes the CRC once in 2^32, and needs the version, a type and that type's form besides.
#[test]
fn random_frames_are_not_accepted() {
    let count: u64 = std::env::var("FATHOM_FRAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut draw = Draw(0x2545_F491_4F6C_DD1D);
    let mut decoder = Decoder::new();
    let mut buffer = [0; MAX_FRAME];
    let mut good = 0;
    for number in 0..count {
        let positions = [number as f32 * 1e-6; 6];
        let message = Message::Chunk(Chunk {
            id: number as u32,
            start_us: START_NOW,
            period_us: 1000,
            validity_us: 1000,
            interpolation: Interpolation::Linear,
            joints: 3,
            steps: 2,
            positions: Positions::Native(&positions),
        });
        let header = Header::new(number as u32, 9, number);
        let length = encode(&header, &message, &mut buffer).expect("fits");
        let bytes = &mut buffer[..length];
        let sent = bytes.to_vec();
        let at = draw.below(length);
        let hit = match number % 4 {
            0 => 0..length,
            1 => at..length,
            _ => at..(at + 1 + draw.below(8)).min(length),
        };
        for byte in &mut bytes[hit] {
            *byte = draw.next() as u8;
        }
        let mut frame = bytes.to_vec();
        if number.is_multiple_of(3) {
            // Whole blocks of COBS with something random, or nearly a frame, in them.
            let mut raw: Vec<u8> = (0..18 + draw.below(60)).map(|_| draw.next() as u8).collect();
            if number.is_multiple_of(2) {
                raw[..2].copy_from_slice(&[PROTOCOL_VERSION, message.kind()]);
            }
            frame = wire::stuffed(&raw);
        }
        let whole = frame == sent;
        // Each frame ends, whatever became of its own end.
        for byte in frame.iter().chain([&0]) {
            if let Some(Ok(frame)) = decoder.feed(*byte) {
                assert!(whole && (frame.header, frame.message) == (header, message), "{frame:?} was not sent");
                good += 1;
            }
        }
    }
    let counters = decoder.counters();
    println!("{count} frames, {good} of them whole and accepted; {counters:?}");
    assert!(u64::from(counters.crc) > count / 4 && counters.cobs > 0 && counters.too_short > 0, "{counters:?}");
}
