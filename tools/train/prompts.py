"""Prompts: text to tokens as the runtime does it (models/src/processing/{prompt,tokenizer}.rs), and the tokenizer that is
exported: bytes, and the words of the tasks as tokens of their own."""

import json
import re
from pathlib import Path

SPACE = "\u2581"  # SentencePiece's mark of a blank
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "\n"]


class Tokenizer:
    """A `tokenizer.json`: BPE with byte fallback, and added tokens (longest first)."""

    def __init__(self, tree: dict, source: str):
        model = tree["model"]
        if model.get("type", "BPE") != "BPE" or not model.get("byte_fallback"):
            raise ValueError(f"{source}: expected a BPE model with byte fallback, found {model.get('type')!r}")
        self.tree, self.vocab = tree, model["vocab"]
        added = [t for t in tree.get("added_tokens", []) if t["content"]]
        self.added = sorted(added, key=lambda t: -len(t["content"].encode()))
        self.ranks = {}
        for rank, merge in enumerate(model.get("merges", [])):
            left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
            self.ranks.setdefault((self.vocab[left], self.vocab[right]), (rank, self.vocab[left + right]))

    @classmethod
    def open(cls, path: Path) -> "Tokenizer":
        return cls(json.loads(path.read_text()), str(path))

    @classmethod
    def of_tasks(cls, tasks: list[str], rows: int) -> "Tokenizer":
        """Bytes, and every word of the tasks, at the start and after a blank; for an embedding table of `rows` rows."""
        vocab = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
        words = sorted({w for task in tasks for w in re.findall(r"\w+", clean(task))})
        forms = [lead + w for w in words for lead in ("", " ")]
        if len(vocab) + len(forms) > rows:
            raise ValueError(
                f"model.vocab: expected at least {len(vocab) + len(forms)} rows for bytes and the {len(words)} words of the "
                f"tasks, found {rows}"
            )
        added = [{"id": len(vocab) + i, "content": form, "special": False} for i, form in enumerate(forms)]
        vocab += [f"<unused{i}>" for i in range(len(vocab), rows)]
        model = {"type": "BPE", "byte_fallback": True, "vocab": {t: i for i, t in enumerate(vocab)}, "merges": []}
        return cls({"model": model, "added_tokens": added}, "tokenizer")

    def prompt(self, task: str, form: str) -> list[int]:
        """Tokens of a task in the form `prompt` of the model's configuration."""
        bos = self.vocab["<bos>"]
        if form == "task":
            return [bos, *self.encode(clean(task), False), *self.encode("\n", False)]
        if form == "lerobot":
            return [bos, *self.encode(task if task.endswith("\n") else task + "\n", True)]
        return [bos, *self.encode(task + "\n", True)]

    def encode(self, text: str, special: bool) -> list[int]:
        tokens, begun, at = [], 0, 0
        while at < len(text):
            hit = next(
                (t for t in self.added if (special or not t.get("special")) and text.startswith(t["content"], at)), None
            )
            if hit is None:
                at += 1
                continue
            tokens += [*self._pairs(text[begun:at]), hit["id"]]
            at += len(hit["content"])
            begun = at
        return tokens + self._pairs(text[begun:])

    def _pairs(self, text: str) -> list[int]:
        """Byte-pair encoding of a text without added tokens."""
        symbols = []
        for c in text.replace(" ", SPACE):
            whole = self.vocab.get(c)
            symbols += [whole] if whole is not None else [self.vocab[f"<0x{byte:02X}>"] for byte in c.encode()]
        while True:
            pairs = [(self.ranks[p], i) for i, p in enumerate(zip(symbols, symbols[1:])) if p in self.ranks]
            if not pairs:
                return symbols
            (_, joined), at = min(pairs, key=lambda x: (x[0][0], x[1]))
            symbols[at : at + 2] = [joined]


def clean(task: str) -> str:
    """Without surrounding blanks, line breaks and underscores (openpi `PaligemmaTokenizer.tokenize`)."""
    return task.strip().replace("_", " ").replace("\n", " ")
