//! A recording's file, as `fathom replay` and `fathom-latency replay` read it.

use std::collections::BTreeMap;

use fathom::record::{Moment, Recording};

const MAGIC: &[u8] = b"\x89MCAP0\r\n";
/// Topics of the channels 0 to 8 of a recording that is put together here.
const TOPICS: [&str; 9] = [
    "/fathom/run",
    "/fathom/observation",
    "/fathom/inference",
    "/fathom/chunk",
    "/fathom/ack",
    "/fathom/state",
    "/fathom/log",
    "/camera/base",
    "/camera/wrist",
];

/// The first byte says what the rest is: a whole file (0), the records of a chunk whose checksum is right (1), or messages,
/// each with a byte for its channel, a byte for its time and two for its length (2). Two files of one folder are read: this one, and a good one
/// after it, which is read whatever this one is.
pub fn recording(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let bytes = match kind % 3 {
        0 => rest.to_vec(),
        1 => file(rest),
        _ => file(&messages(rest)),
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.mcap"), &bytes).expect("written");
    std::fs::write(folder.path().join("b.mcap"), file(&good())).expect("written");
    let mut images = BTreeMap::new();
    let (mut pixels, mut observations, mut files, mut last) = (0, 0, 0, 0);
    let incomplete = Recording::open(folder.path()).expect("a folder with files").each(|moment| {
        match moment {
            Moment::File(_) => {
                files += 1;
                assert!(images.is_empty(), "images are those of the observation that comes next");
                (last, pixels) = (observations, 0);
            }
            Moment::Image { view, image } => {
                image.check("recording").expect("a whole image");
                pixels += image.data.len();
                assert!(pixels <= bytes.len().max(100), "more pixels than bytes");
                assert!(images.insert(view, image).is_none(), "one image of each view");
            }
            Moment::Observation(observation) => {
                observations += 1;
                let seen = std::mem::take(&mut images);
                let views = observation.views.iter().filter(|view| seen.contains_key(&view.view)).count();
                assert!(views == observation.views.len() && views == seen.len(), "an observation has its images");
            }
            _ => {}
        }
        Ok::<_, ()>(true)
    });
    let incomplete = incomplete.expect("reading does not fail");
    assert!(files == 2 && observations == last + 1, "the good file is read");
    assert!(incomplete.iter().all(|file| !file.to_string().is_empty() && !file.causes.is_empty()));
    // Without its end the file here is unfinished; the other one that is made here, too.
    assert!(incomplete.iter().any(|file| file.path.ends_with("b.mcap")));
}

/// A file without an index, with these records in one chunk.
fn file(records: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    record(&mut bytes, 1, &[0; 8]);
    for (id, topic) in TOPICS.iter().enumerate() {
        let mut channel = (id as u16).to_le_bytes().to_vec();
        channel.extend([0; 2]);
        channel.extend((topic.len() as u32).to_le_bytes());
        channel.extend(topic.as_bytes());
        channel.extend([0; 8]);
        record(&mut bytes, 4, &channel);
    }
    let mut chunk = vec![0; 16];
    chunk.extend((records.len() as u64).to_le_bytes());
    chunk.extend(super::wire::sum(records).to_le_bytes());
    chunk.extend([0; 4]);
    chunk.extend((records.len() as u64).to_le_bytes());
    chunk.extend(records);
    record(&mut bytes, 6, &chunk);
    bytes
}

fn record(into: &mut Vec<u8>, op: u8, content: &[u8]) {
    into.push(op);
    into.extend((content.len() as u64).to_le_bytes());
    into.extend(content);
}

fn message(into: &mut Vec<u8>, channel: u8, log_ns: u64, data: &[u8]) {
    let mut content = u16::from(channel).to_le_bytes().to_vec();
    content.extend([0; 4]);
    content.extend(log_ns.to_le_bytes());
    content.extend([0; 8]);
    content.extend(data);
    record(into, 5, &content);
}

/// Records of the messages that the input lists.
fn messages(mut rest: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    while let [channel, log_ns, low, high, tail @ ..] = rest {
        let (data, after) = tail.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(tail.len()));
        message(&mut records, *channel, (*log_ns).into(), data);
        rest = after;
    }
    records
}

/// A run with one camera and one observation.
fn good() -> Vec<u8> {
    let mut records = Vec::new();
    message(&mut records, 0, 0, RUN.as_bytes());
    let mut image = vec![0x15, 1, 0, 0, 0, 0x1d, 1, 0, 0, 0, 0x22, 4];
    image.extend(b"rgb8");
    image.extend([0x2d, 3, 0, 0, 0, 0x32, 3, 1, 2, 3]);
    message(&mut records, 7, 7, &image);
    message(&mut records, 1, 8, OBSERVATION.as_bytes());
    records
}

const RUN: &str = r#"{"version":"","model":"","family":"","fingerprint":"","skip_views":[],"views":["base"],"prompt":null,
"adapter":"","driver":"","kernels":"","joints":[],"action_rate_hz":1.0,"realtime_offset_ns":0}"#;
const OBSERVATION: &str = r#"{"number":1,"seed":1,"state":[],"tokens":[],"guide":null,"views":[{"view":"base","stamp_ns":7,
"stamp":"","dequeued_ns":7,"sequence":1,"age_ms":1.0,"format":"rgb24"}],"asked_ns":8}"#;
