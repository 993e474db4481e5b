use super::*;
use crate::record::mcap::{ChannelSpec, Writer};

/// Chunks of messages that contain their numbers; without `finish` as after a crash.
fn file(count: u64, bytes: usize, finish: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, "fathom").unwrap();
    let spec = ChannelSpec { topic: "/a", schema: "A", schema_encoding: "jsonschema", data: b"{}", encoding: "json" };
    let channel = writer.channel(&spec).unwrap();
    writer.repeat_channels();
    for n in 0..count {
        let mut data = n.to_le_bytes().to_vec();
        data.resize(bytes, n as u8);
        writer.message(channel, n, n, &data).unwrap();
        if n % 3 == 2 {
            writer.close_chunk().unwrap();
        }
    }
    if finish {
        writer.finish().unwrap();
    } else {
        writer.close_chunk().unwrap();
    }
    out
}

/// The numbers of the messages read, and the causes.
fn numbers(bytes: &[u8]) -> (Vec<u64>, Causes) {
    let (mut numbers, mut causes) = (Vec::new(), Causes::default());
    let done = read(io::Cursor::new(bytes), &mut causes, &mut |message, _, _| {
        assert_eq!(message.topic, "/a");
        let number = u64::from_le_bytes(message.data[..8].try_into().unwrap());
        assert!(message.log_ns == number && message.data[8..].iter().all(|b| *b == number as u8));
        numbers.push(number);
        Ok::<_, ()>(true)
    });
    assert!(done.is_ok());
    (numbers, causes)
}

#[test]
fn a_whole_file_is_read_without_a_remark() {
    let (numbers, causes) = numbers(&file(20, 50, true));
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(causes.is_empty(), "{causes}");
}

/// A file cut anywhere gives the beginning of its messages: all complete chunks.
#[test]
fn a_file_cut_anywhere_gives_its_beginning() {
    for finish in [true, false] {
        let bytes = file(20, 50, finish);
        let mut most = 0;
        for length in 0..bytes.len() {
            let (numbers, causes) = numbers(&bytes[..length]);
            assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "cut at {length}");
            assert!(
                numbers.len() >= most && (numbers.len() % 3 == 0 || numbers.len() == 20),
                "cut at {length}: {numbers:?}"
            );
            assert!(!causes.is_empty(), "cut at {length}: nothing is said");
            most = numbers.len();
        }
        assert_eq!(most, 20, "the last byte is the index's");
    }
}

/// Any turned bit of a finished file is reported, no message is invented, and at most one chunk of three messages
/// is lost.
#[test]
fn every_turned_bit_is_noticed() {
    let bytes = file(12, 40, true);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let (numbers, causes) = numbers_of(&changed);
            assert!(!causes.is_empty(), "bit {bit} of byte {at} is not noticed");
            let lost = (0..12).filter(|n| !numbers.contains(n)).count();
            assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(|n| *n < 12), "{numbers:?}");
            assert!(lost <= 3, "bit {bit} of byte {at}: {lost} lost, {causes}");
        }
    }
}

/// As `numbers`, for files in which the topic may differ.
fn numbers_of(bytes: &[u8]) -> (Vec<u64>, Causes) {
    let (mut numbers, mut causes) = (Vec::new(), Causes::default());
    let done = read(io::Cursor::new(bytes), &mut causes, &mut |message, _, _| {
        numbers.push(u64::from_le_bytes(message.data[..8].try_into().unwrap()));
        Ok::<_, ()>(true)
    });
    assert!(done.is_ok());
    (numbers, causes)
}

/// A length of 2^60 and more allocates no memory, in any place.
#[test]
fn a_length_beyond_the_file_is_damage() {
    for length in [1 << 60, u64::MAX, u64::MAX - 8, 1 << 32] {
        for op in 0..=u8::MAX {
            let mut bytes = MAGIC.to_vec();
            bytes.push(op);
            bytes.extend(length.to_le_bytes());
            bytes.extend([0; 100]);
            let (numbers, causes) = numbers(&bytes);
            assert!(numbers.is_empty() && causes.to_string().contains("truncated"), "{causes}");
        }
    }
    let whole = file(12, 40, true);
    let chunk = whole.windows(9).position(|w| w[0] == CHUNK && w[4..9] == [0; 5]).unwrap();
    let mut changed = whole.clone();
    changed[chunk + 1..chunk + 9].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let (numbers, causes) = numbers(&changed);
    assert_eq!(numbers, (3..12).collect::<Vec<_>>(), "{causes}");
}

/// A write that failed half-way, followed by others: the next chunk lies within the length of the partial one.
#[test]
fn half_a_chunk_hides_none_of_the_others() {
    let whole = file(9, 40, true);
    let begins = |at: &usize| whole_chunk(&whole[*at..], (whole.len() - at) as u64).is_some();
    let chunks: Vec<usize> = (0..whole.len()).filter(begins).collect();
    assert_eq!(chunks.len(), 3);
    let length = usize::from(whole[chunks[1] + 1]) + RECORD_HEAD as usize;
    for half in 0..chunks[2] - chunks[1] {
        let mut file = whole[..chunks[1] + half].to_vec();
        file.extend(&whole[chunks[2]..]);
        let (numbers, causes) = numbers(&file);
        let left: Vec<u64> = (0..9).filter(|n| half >= length || !(3..6).contains(n)).collect();
        assert_eq!(numbers, left, "{half} bytes: {causes}");
        assert!(!causes.is_empty(), "{half} bytes");
    }
}

/// A file after a power cut: its size without its last blocks.
#[test]
fn a_tail_of_zeros_is_damage() {
    let mut bytes = file(18, 50, false);
    bytes.resize(bytes.len() + 4096, 0);
    let (numbers, causes) = numbers(&bytes);
    assert_eq!(numbers.len(), 18);
    assert!(causes.to_string().contains("truncated"), "{causes}");
}

#[test]
fn what_is_no_recording_is_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    for (bytes, expected) in [
        (&b""[..], "an empty file"),
        (pointer, "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (&[0; 4096], "only zeros"),
        (b"not MCAP", "not an MCAP file"),
        (&MAGIC[..1], "truncated"),
        (&MAGIC[..7], "truncated"),
    ] {
        let (numbers, causes) = numbers(bytes);
        assert!(numbers.is_empty() && causes.to_string().contains(expected), "{causes}, not {expected}");
    }
}
