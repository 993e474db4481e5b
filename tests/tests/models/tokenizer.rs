//! Prompts become the tokens that SentencePiece and Hugging Face's `tokenizers` give, with the oracle's vocabulary, with one
//! trained here, and with Gemma's where `FATHOM_GEMMA_TOKENIZER` names its `tokenizer.json` (256,000 entries, which
//! `tests/oracle/gemma` fetches).

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use fathom_models::nets::config::PromptFormat;
use fathom_models::processing::prompt;
use fathom_models::processing::tokenizer::Tokenizer;
use fathom_tests::{path, skip};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Replace;
use tokenizers::{AddedToken, TokenizerImpl};

/// Prompts with the characters that go wrong: repeated spaces, umlauts, emoji, CJK, digits, punctuation.
const PROMPTS: [&str; 12] = [
    "put both moka pots on the stove",
    "reach for the red block",
    "a",
    "pick  up   the  cup",
    "Stelle die Tasse auf den Küchentisch!",
    "open drawer 3, then close drawer 12.",
    "🤖 grasp the 🍎",
    "把杯子放在桌子上",
    "naïve café — “quoted”",
    "stackthebluecubeonthegreenone",
    "x\ty",
    "...!!!???",
];

type Theirs = TokenizerImpl<
    BPE,
    Replace,
    tokenizers::PreTokenizerWrapper,
    tokenizers::PostProcessorWrapper,
    tokenizers::DecoderWrapper,
>;

/// Trains a small BPE vocabulary with byte fallback on the prompts, as SentencePiece's Gemma family is set up.
fn train(folder: &Path) {
    let bytes = (0..=255).map(|b| AddedToken::from(format!("<0x{b:02X}>"), true));
    let special: Vec<AddedToken> =
        ["<pad>", "<eos>", "<bos>", "<unk>"].map(|t| AddedToken::from(t, true)).into_iter().chain(bytes).collect();
    let mut trainer = BpeTrainerBuilder::new().vocab_size(420).show_progress(false).special_tokens(special).build();
    let model =
        BPE::builder().byte_fallback(true).unk_token("<unk>".to_owned()).fuse_unk(true).build().expect("a model");
    let mut tokenizer = Theirs::new(model);
    tokenizer.with_normalizer(Some(Replace::new(" ", "\u{2581}").expect("a normaliser")));
    // The last three are left out, so that characters of theirs are unknown and fall back to bytes.
    let known: Vec<String> = PROMPTS.iter().take(9).cycle().take(90).map(|p| format!("{p}\n")).collect();
    tokenizer.train(&mut trainer, known.iter()).expect("trains");
    tokenizer.save(folder.join("tokenizer.json"), false).expect("saved");
}

fn compare(folder: &Path) {
    let ours = Tokenizer::open(folder).expect("ours opens");
    let theirs = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).expect("theirs opens");
    for prompt in PROMPTS {
        let clean = prompt.trim().replace(['_', '\n'], " ");
        let part = |text: &str| theirs.encode(text, false).expect("encodes").get_ids().to_vec();
        let expected: Vec<u32> = [vec![2], part(&clean), part("\n")].concat();
        let found: Vec<u32> = ours.prompt(prompt).expect("encodes").into_iter().map(i32::cast_unsigned).collect();
        assert_eq!(found, expected, "{prompt:?}");
    }
}

#[test]
fn prompts_give_the_tokens_of_the_tokenizers_crate() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path());
    compare(folder.path());
}

/// As SentencePiece gives them to openpi, and Hugging Face's tokenizer to lerobot: the oracle's vocabulary, whose last
/// prompts have tokens in their text.
#[test]
fn prompts_give_the_tokens_of_the_origins() {
    let folder = path("golden/tokenizer");
    let ours = Tokenizer::open(&folder).expect("it opens");
    let text = std::fs::read_to_string(folder.join("prompts.json")).expect("the prompts");
    let prompts: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    assert!(prompts.len() > 10);
    for case in &prompts {
        let prompt = case["prompt"].as_str().expect("a prompt");
        let found = ours.text(PromptFormat::Task, prompt).expect("encodes");
        assert_eq!(serde_json::json!(found), case["openpi"], "openpi: {prompt:?}");
        let found = ours.text(PromptFormat::Lerobot, &prompt::lerobot(prompt)).expect("encodes");
        assert_eq!(serde_json::json!(found), case["lerobot"], "lerobot: {prompt:?}");
    }
}

/// And openpi's published encodings of two LIBERO prompts.
#[test]
fn prompts_give_gemmas_tokens() {
    let Ok(file) = std::env::var("FATHOM_GEMMA_TOKENIZER") else {
        skip("prompts_give_gemmas_tokens", "FATHOM_GEMMA_TOKENIZER does not name a tokenizer.json");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(file, folder.path().join("tokenizer.json")).expect("copied");
    compare(folder.path());
    let ours = Tokenizer::open(folder.path()).expect("ours opens");
    let encode = |prompt| ours.prompt(prompt).expect("encodes");
    assert_eq!(encode("put both moka pots on the stove"), [2, 1065, 2145, 705, 1161, 37801, 611, 573, 37932, 108]);
    assert_eq!(
        encode("put the white mug on the left plate and put the yellow and white mug on the right plate"),
        [
            2, 1065, 573, 2674, 24464, 611, 573, 2731, 8811, 578, 2507, 573, 8123, 578, 2674, 24464, 611, 573, 1833,
            8811, 108
        ]
    );
}
