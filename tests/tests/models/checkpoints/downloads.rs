//! What is left of a download in the place of a file: the error says which it is, and what to do.

use std::os::unix::fs::symlink;
use std::path::Path;

use fathom_models::families::depth_anything;
use fathom_models::processing::tokenizer::Tokenizer;
use fathom_models::{Content, FileError, JsonError, ModelError, NotSafetensors, ShardProblem};
use fathom_tests::tensors::{Tensors, copy_golden};

use super::{INDEX, LEROBOT, POSTPROCESSOR, PREPROCESSOR, STATISTICS, WEIGHTS, load, names_all, read, refused, write};

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:7f1e\nsize 7492710400\n";
const PAGE: &[u8] = b"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>Sign in\n to continue</title></head></html>";

/// Bytes that are left, the kind that they are, and parts of what the error says.
fn remains() -> Vec<(Vec<u8>, Content, &'static [&'static str])> {
    let torch = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    let zip = |name: &str| {
        [b"PK\x03\x04\x00\x00\x08\x08\x00\x00".as_slice(), &[0; 16], name.as_bytes(), &[b' '; 64]].concat()
    };
    let archive = |format| Content::Archive { format };
    vec![
        (Vec::new(), Content::Empty, &["an empty file: download it again"]),
        (vec![0; 5000], Content::Zeros, &["a file of zeros", "download it again"]),
        (
            LFS.to_vec(),
            Content::LfsPointer { bytes: Some(7_492_710_400) },
            &["a Git LFS pointer to a file of 7492710400 bytes", "run `git lfs pull`"],
        ),
        (b"/annex/objects/SHA256E-s3--ab.safetensors\n".to_vec(), Content::AnnexPointer, &["`git annex get`"]),
        (
            PAGE.to_vec(),
            Content::WebPage { title: Some("Sign in to continue".into()) },
            &["a web page with the title \"Sign in to continue\"", "`resolve`", "a login"],
        ),
        (b"\xEF\xBB\xBF\n <HTML><body>502 Bad Gateway".to_vec(), Content::WebPage { title: None }, &["a web page: "]),
        (
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".to_vec(),
            Content::Xml { message: Some("Access Denied".into()) },
            &["XML with the message \"Access Denied\""],
        ),
        (torch, Content::PyTorch, &["PyTorch's own format", "save its state dictionary as safetensors"]),
        (zip("archive/data.pkl"), Content::PyTorch, &["PyTorch's own format"]),
        (zip("weights/model.safetensors"), archive("zip"), &["a zip file: unpack it"]),
        (b"\x80\x04\x95\x1c\0\0\0\0\0\0\0}\x94.".to_vec(), Content::Pickle, &["a Python pickle"]),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03abc".to_vec(), archive("gzip"), &["a gzip file: unpack it"]),
        (b"\x28\xb5\x2f\xfd\x04\0\0\0\0".to_vec(), archive("zstd"), &["a zstd file: unpack it"]),
        (
            b"GGUF\x03\0\0\0\x21\x01\0\0".to_vec(),
            Content::Foreign { format: "GGUF" },
            &["GGUF, which Fathom does not read"],
        ),
        (b"\x89HDF\r\n\x1a\n\0".to_vec(), Content::Foreign { format: "HDF5" }, &["HDF5, which Fathom does not read"]),
        (b"\xff\xfe{\0\"\0a\0\"\0".to_vec(), Content::Utf16, &["text in UTF-16"]),
        (
            b"Access to model google/paligemma-3b-pt-224 is restricted.".to_vec(),
            Content::Text { begin: "Access to model google/paligemma-3b-pt-224 is restricted.".into() },
            &["the text \"Access to model google/paligemma-3b-pt-224 is restricted.\""],
        ),
    ]
}

#[test]
fn in_the_place_of_weights() {
    for (bytes, content, parts) in remains() {
        for file in [WEIGHTS, STATISTICS] {
            let dir = copy_golden(LEROBOT);
            write(&dir.path().join(file), &bytes);
            let error = refused(dir.path());
            let ModelError::Safetensors { path, source } = &error else { panic!("{content:?}: {error}") };
            assert_eq!((path, source), (&dir.path().join(file), &NotSafetensors::Content(content.clone())), "{error}");
            names_all(&error, parts);
        }
    }
}

/// A golden, a file of it, and the error of whoever reads that.
type Place = (&'static str, &'static str, fn(&Path) -> ModelError);

#[test]
fn in_the_place_of_json() {
    let files: [Place; 8] = [
        (LEROBOT, "config.json", refused),
        (LEROBOT, PREPROCESSOR, refused),
        (LEROBOT, POSTPROCESSOR, refused),
        (LEROBOT, "fathom.json", refused),
        ("depthvla_openpi", "norm_stats.json", refused),
        ("depth_anything_metric", "preprocessor_config.json", |dir| {
            depth_anything::load(dir).map(|_| ()).expect_err("it must not load")
        }),
        (LEROBOT, "manifest.json", refused),
        (LEROBOT, "tokenizer.json", |dir| Tokenizer::open(dir).expect_err("it must not open")),
    ];
    for (bytes, content, parts) in remains() {
        for (case, file, open) in files {
            let dir = copy_golden(case);
            write(&dir.path().join(file), &bytes);
            let error = open(dir.path());
            let ModelError::File(FileError::Json { path, source }) = &error else {
                panic!("{content:?} as {file}: {error}")
            };
            assert_eq!((path, source), (&dir.path().join(file), &JsonError::Content(content.clone())), "{error}");
            names_all(&error, parts);
        }
    }
    // The error message of a server is JSON, too.
    for (text, message) in [
        (r#"{"error": "Invalid username or password."}"#, "Invalid username or password."),
        (r#"{"message": "Not Found", "documentation_url": "x", "status": "404"}"#, "Not Found"),
        (r#"{"detail": "rate limited"}"#, "rate limited"),
        (r#"{"error": {"code": 401, "message": "login"}}"#, "login"),
    ] {
        for (case, file, open) in files {
            let dir = copy_golden(case);
            write(&dir.path().join(file), text);
            names_all(&open(dir.path()), &[file, "the error message of a server", message, "download it again"]);
        }
        let dir = copy_golden(LEROBOT);
        write(&dir.path().join(WEIGHTS), text);
        names_all(&refused(dir.path()), &[WEIGHTS, "not a complete safetensors file: JSON"]);
    }
    let dir = copy_golden(LEROBOT);
    std::fs::copy(dir.path().join(WEIGHTS), dir.path().join("config.json")).expect("copied");
    names_all(&refused(dir.path()), &["config.json: expected JSON, found safetensors"]);
}

/// A file that ends too early says by how much.
#[test]
fn weights_that_are_cut_off() {
    let dir = copy_golden(LEROBOT);
    let file = dir.path().join(WEIGHTS);
    let whole = std::fs::read(&file).expect("the weights");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    for (length, expected, least) in [
        (whole.len() - 1, whole.len(), false),
        (header, whole.len(), false),
        (header - 1, header, true),
        (100, header, true),
        (8, header, true),
    ] {
        write(&file, &whole[..length]);
        let error = refused(dir.path());
        let ModelError::Safetensors { source, .. } = &error else { panic!("{error}") };
        let size = NotSafetensors::Size { expected: expected as u64, least, found: length as u64 };
        assert_eq!(*source, size, "{error}");
        names_all(&error, &[&format!("{expected} bytes, and it has {length}: download it again")]);
    }
    write(&file, [whole.as_slice(), b"more"].concat());
    names_all(&refused(dir.path()), &[&format!("{} bytes, and it has {}", whole.len(), whole.len() + 4)]);
}

#[test]
fn shards_are_listed_together() {
    let dir = copy_golden(LEROBOT);
    let at = |name: &str| dir.path().join(name);
    let tensors = Tensors::read(&at(WEIGHTS));
    std::fs::remove_file(at(WEIGHTS)).expect("removed");
    let shards = ["a.safetensors", "b.safetensors", "c.safetensors"];
    let of = |i: usize| if i == 0 { "c.safetensors" } else { ["a.safetensors", "b.safetensors"][i % 2] };
    let map: serde_json::Map<String, serde_json::Value> =
        tensors.0.keys().enumerate().map(|(i, name)| (name.clone(), of(i).into())).collect();
    write(&at(INDEX), serde_json::json!({ "weight_map": map }).to_string());
    write(&at(shards[0]), LFS);
    write(&at(shards[1]), PAGE);
    let error = refused(dir.path());
    let ModelError::Shards { problems, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(&problems[..], [
        ShardProblem::Unreadable { file: a, .. }, ShardProblem::Unreadable { file: b, .. }, ShardProblem::NoFile { file: c },
    ] if [a, b, c] == shards),
        "{error}"
    );
    names_all(&error, &["a.safetensors: a Git LFS pointer", "b.safetensors: a web page", "no file     c.safetensors"]);
    write(&at(INDEX), LFS);
    names_all(&refused(dir.path()), &[INDEX, "a Git LFS pointer"]);
}

/// A folder of links (as a hub's cache has it) that was copied without what they lead to: nothing that is linked counts as
/// not needed.
#[test]
fn links_to_nothing() {
    for file in [WEIGHTS, "config.json", PREPROCESSOR, POSTPROCESSOR, STATISTICS, "fathom.json", "manifest.json"] {
        let dir = copy_golden(LEROBOT);
        let path = dir.path().join(file);
        if path.exists() {
            std::fs::remove_file(&path).expect("removed");
        }
        symlink("../../blobs/0123abcd", &path).expect("linked");
        let error = refused(dir.path());
        assert!(matches!(error, ModelError::File(FileError::Io { .. })), "{file}: {error}");
        names_all(&error, &[file, "a link to ../../blobs/0123abcd, which is not there", "cp -L"]);
    }
}

#[test]
fn a_download_that_did_not_end() {
    for (file, told) in [
        ("model.safetensors.incomplete", "a download that did not end"),
        ("model.safetensors.part", "a download that did not end"),
        ("model.safetensors.crdownload", "a download that did not end"),
        ("model-00002-of-00004.safetensors", "a part of the weights without model.safetensors.index.json"),
        ("weights.zip", "an archive: unpack it"),
    ] {
        let dir = copy_golden(LEROBOT);
        std::fs::rename(dir.path().join(WEIGHTS), dir.path().join(file)).expect("renamed");
        let error = refused(dir.path());
        assert!(matches!(error, ModelError::Format { .. }), "{error}");
        names_all(&error, &[file, told]);
    }
    let dir = copy_golden(LEROBOT);
    assert!(read(&dir.path().join("config.json")).contains("pi0"));
    load(dir.path());
    names_all(&refused(&dir.path().join(WEIGHTS)), &["found a file where the model's folder should be"]);
}
