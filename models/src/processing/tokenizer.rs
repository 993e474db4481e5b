//! Prompts to tokens: byte-pair encoding with byte fallback, as SentencePiece's Gemma family has it, read from a
//! Hugging Face `tokenizer.json`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::ModelError;
use crate::io::json::read_json;
use crate::nets::config::PromptFormat;
use crate::processing::prompt;

/// Begin of sequence, which comes first in every prompt.
const BOS: &str = "<bos>";

/// A vocabulary and its merges.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: HashMap<String, i32>,
    /// Pair to its rank and its merged token; the lowest rank merges first.
    merges: HashMap<(i32, i32), (usize, i32)>,
    /// Texts that are tokens wherever they stand, longest first.
    added: Vec<Added>,
    bos: i32,
}

#[derive(Deserialize)]
struct File {
    model: Bpe,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Debug, Deserialize)]
struct Added {
    id: i32,
    content: String,
    /// SentencePiece has a control symbol there, which no text becomes.
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type", default)]
    kind: String,
    vocab: HashMap<String, i32>,
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
}

/// `["a", "b"]`, or `"a b"` in older files.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a pair of tokens")]
enum Merge {
    Pair(String, String),
    Joined(String),
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`.
    ///
    /// # Errors
    /// [`ModelError::File`], [`ModelError::File`], or [`ModelError::Prompt`] for another kind of tokenizer.
    pub fn open(dir: &Path) -> Result<Tokenizer, ModelError> {
        let path: PathBuf = dir.join("tokenizer.json");
        let File { model, mut added_tokens } = read_json(&path)?;
        let Bpe { kind, vocab, merges, byte_fallback } = model;
        let refuse = |what: String| ModelError::Prompt(format!("{}: {what}", path.display()));
        if !(kind.is_empty() || kind == "BPE") || !byte_fallback {
            return Err(refuse(format!(
                "expected a BPE model with byte fallback, found {kind:?}, byte fallback {byte_fallback}"
            )));
        }
        let id = |token: &str| vocab.get(token).copied().ok_or_else(|| refuse(format!("no token {token:?}")));
        let mut table = HashMap::with_capacity(merges.len());
        for (rank, merge) in merges.iter().enumerate() {
            let (left, right) = match merge {
                Merge::Pair(left, right) => (left.as_str(), right.as_str()),
                Merge::Joined(both) => {
                    both.split_once(' ').ok_or_else(|| refuse(format!("merge {both:?} is no pair")))?
                }
            };
            table.entry((id(left)?, id(right)?)).or_insert((rank, id(&format!("{left}{right}"))?));
        }
        let bos = id(BOS)?;
        added_tokens.retain(|token| !token.content.is_empty());
        added_tokens.sort_by_key(|token| std::cmp::Reverse(token.content.len()));
        Ok(Tokenizer { vocab, merges: table, added: added_tokens, bos })
    }

    /// As [`open`](Self::open), for a model whose embedding table has `rows` rows: a table is often a little longer than its
    /// vocabulary (padding, PaliGemma's tokens for places), but a vocabulary of less than 99 in 100 is another model's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for(dir: &Path, rows: usize) -> Result<Tokenizer, ModelError> {
        let tokenizer = Tokenizer::open(dir)?;
        let size = tokenizer.vocab.len();
        if size * 100 < rows * 99 {
            let path = dir.join("tokenizer.json");
            return Err(ModelError::Prompt(format!(
                "{}: expected a vocabulary for the embedding table's {rows} rows, found {size} tokens",
                path.display()
            )));
        }
        Ok(tokenizer)
    }

    /// Tokens of a text of [`prompt::text`] for a model of this format.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn text(&self, format: PromptFormat, text: &str) -> Result<Vec<i32>, ModelError> {
        match format {
            PromptFormat::Task => self.prompt(text),
            PromptFormat::TaskAndState | PromptFormat::Lerobot | PromptFormat::OpenPiZero | PromptFormat::Galaxea => {
                Ok([vec![self.bos], self.encode(text, true)?].concat())
            }
        }
    }

    /// Tokens of a prompt: begin of sequence, the cleaned text, and a newline encoded by itself (openpi
    /// `PaligemmaTokenizer.tokenize`).
    ///
    /// # Errors
    /// [`ModelError::Prompt`] for a character that the vocabulary cannot express.
    pub fn prompt(&self, text: &str) -> Result<Vec<i32>, ModelError> {
        let clean = prompt::clean(text);
        let mut tokens = vec![self.bos];
        tokens.extend(self.encode(&clean, false)?);
        tokens.extend(self.encode("\n", false)?);
        Ok(tokens)
    }

    /// As Hugging Face's tokenizers, or, without `special` tokens in a text, as SentencePiece.
    fn encode(&self, text: &str, special: bool) -> Result<Vec<i32>, ModelError> {
        let starts = |at: usize| {
            let rest = text.get(at..)?;
            self.added.iter().find(|token| (special || !token.special) && rest.starts_with(&token.content))
        };
        let (mut tokens, mut begun, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            match starts(at) {
                Some(token) => {
                    tokens.extend(self.pairs(text.get(begun..at).unwrap_or_default())?);
                    tokens.push(token.id);
                    at += token.content.len();
                    begun = at;
                }
                None => at += 1,
            }
        }
        tokens.extend(self.pairs(text.get(begun..).unwrap_or_default())?);
        Ok(tokens)
    }

    /// A text without added tokens.
    fn pairs(&self, text: &str) -> Result<Vec<i32>, ModelError> {
        let mut symbols = Vec::new();
        for c in text.replace(' ', "\u{2581}").chars() {
            let mut buffer = [0; 4];
            let c: &str = c.encode_utf8(&mut buffer);
            match self.vocab.get(c) {
                Some(id) => symbols.push(*id),
                None => {
                    for byte in c.bytes() {
                        let id = self.vocab.get(&format!("<0x{byte:02X}>"));
                        symbols.push(*id.ok_or_else(|| ModelError::Prompt(format!("no token for {c:?}")))?);
                    }
                }
            }
        }
        loop {
            let pairs = symbols.iter().zip(symbols.iter().skip(1)).enumerate();
            let best =
                pairs.filter_map(|(at, (l, r))| self.merges.get(&(*l, *r)).map(|(rank, id)| (*rank, at, *id))).min();
            let Some((_, at, id)) = best else { return Ok(symbols) };
            symbols.splice(at..at + 2, [id]);
        }
    }
}

/// A `tokenizer.json` that knows single bytes only, for models that were never trained: ids 0 to 3 are padding, end,
/// begin and unknown, 4 is the newline, 5 to 260 the bytes, and the rest up to `size` is not used.
pub fn bytes_only(size: usize) -> serde_json::Value {
    let names = ["<pad>", "<eos>", BOS, "<unk>", "\n"].map(str::to_owned);
    let bytes = (0..=255).map(|b| format!("<0x{b:02X}>"));
    let rest = (261..size).map(|id| format!("<unused{id}>"));
    let vocab: serde_json::Map<String, serde_json::Value> =
        names.into_iter().chain(bytes).chain(rest).enumerate().map(|(id, name)| (name, id.into())).collect();
    serde_json::json!({ "model": { "type": "BPE", "byte_fallback": true, "vocab": vocab, "merges": [] } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(json: &serde_json::Value) -> Tokenizer {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).expect("written");
        Tokenizer::open(dir.path()).expect("it opens")
    }

    #[test]
    fn merges_go_by_rank_and_unknown_characters_by_bytes() {
        let json = serde_json::json!({ "model": { "type": "BPE", "byte_fallback": true,
            "vocab": { "<bos>": 2, "\n": 3, "a": 4, "b": 5, "c": 6, "\u{2581}": 7, "ab": 8, "bc": 9, "abc": 10, "<0xC3>": 11, "<0xA9>": 12 },
            "merges": [["b", "c"], "a b", ["a", "bc"]] } });
        let t = tokenizer(&json);
        assert_eq!(t.prompt(" abc_ab\u{e9} ").expect("encodes"), [2, 10, 7, 8, 11, 12, 3]);
        assert!(t.prompt("z").is_err(), "no token and no byte for z");
    }

    #[test]
    fn the_byte_tokenizer_takes_any_prompt() {
        assert_eq!(tokenizer(&bytes_only(0)).prompt("A\u{e9}").expect("encodes"), [2, 5 + 65, 5 + 0xC3, 5 + 0xA9, 4]);
    }

    #[test]
    fn a_vocabulary_much_smaller_than_the_embedding_is_another_models() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("tokenizer.json"), bytes_only(297).to_string()).expect("written");
        assert!(Tokenizer::open_for(dir.path(), 300).is_ok(), "a table that was padded");
        let error = Tokenizer::open_for(dir.path(), 301).expect_err("too small").to_string();
        assert!(error.contains("tokenizer.json: expected a vocabulary for the embedding table's 301 rows"), "{error}");
        assert!(error.contains("found 297 tokens"), "{error}");
    }
}
