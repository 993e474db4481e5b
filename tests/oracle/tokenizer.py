"""Prompts as openpi tokenises them (SentencePiece itself, `PaligemmaTokenizer.tokenize`) and as lerobot does (Hugging Face's
`tokenizers`), with a small vocabulary that is made here as Gemma's is: BPE, byte fallback, digits apart, white space kept."""

import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers import GemmaTokenizer


def train(folder: Path, case: dict) -> sentencepiece.SentencePieceProcessor:
    text = folder / "text"
    text.write_text("\n".join(case["text"]) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=case["size"],
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        user_defined_symbols=["\n", "\n\n", "▁▁", "▁▁▁", "<loc0000>"],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def openpi(sp: sentencepiece.SentencePieceProcessor, prompt: str) -> list[int]:
    clean = prompt.strip().replace("_", " ").replace("\n", " ")
    return sp.encode(clean, add_bos=True) + sp.encode("\n")


def write(case: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sp = train(Path(scratch), case)
        theirs = GemmaTokenizer.from_pretrained(scratch, add_bos_token=True)
    theirs.backend_tokenizer.save(str(folder / "tokenizer.json"))

    def lerobot(task: str) -> list[int]:
        return theirs(task if task.endswith("\n") else f"{task}\n")["input_ids"]

    prompts = [{"prompt": task, "openpi": openpi(sp, task), "lerobot": lerobot(task)} for task in case["prompts"]]
    (folder / "prompts.json").write_text(json.dumps(prompts, ensure_ascii=False, indent=1) + "\n")
