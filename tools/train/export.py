"""Writes and reads Fathom model directories: config.json, model.safetensors, norm_stats.json, tokenizer.json."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from data import Statistics
from model import DepthVla
from prompts import Tokenizer


class DirectoryError(Exception):
    """A file of a model directory, what was expected and what was found."""


def save(path: Path, config: dict, weights: dict, statistics: Statistics, tokenizer: Tokenizer, kind: str, record: dict) -> None:
    """`weights` are named tensors; `kind` is f32 or bf16. `record` goes into training.json: what made the model."""
    path.mkdir(parents=True, exist_ok=True)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[kind]
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in weights.items()}
    part = path / "model.safetensors.part"
    save_file(tensors, part)
    part.chmod(0o666 & ~umask())
    os.replace(part, path / "model.safetensors")
    for name, tree in (
        ("config.json", config),
        ("norm_stats.json", {"norm_stats": statistics.lists}),
        ("tokenizer.json", tokenizer.tree),
        ("training.json", record),
    ):
        (path / name).write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def weights_of(path: Path) -> dict:
    """Every float tensor of a directory, in f32; one file, or those that model.safetensors.index.json names."""
    index = path / "model.safetensors.index.json"
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    tensors = {}
    for name in names:
        tensors |= load_file(path / name)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise DirectoryError(f"{path}: {name}: expected f32, f16 or bf16, found {tensor.dtype}: a packed model cannot be trained")
        tensors[name] = tensor.float()
    return tensors


def load_weights(model: DepthVla, path: Path) -> None:
    """Fills the model; a missing, additional or misshapen tensor is an error."""
    tensors, expected = weights_of(path), model.state_dict()
    unused = f"joint_model.mixtures.vlm.layers.{model.config['layers'] - 1}."  # nothing reads the VLM's last queries and MLP
    tensors = {n: t for n, t in tensors.items() if n in expected or not n.startswith(unused)}
    missing, additional = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or additional:
        raise DirectoryError(f"{path}: expected the tensors of its config.json, found {missing[:5]} missing and {additional[:5]} besides")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise DirectoryError(f"{path}: {name}: expected shape {list(tensor.shape)}, found {list(tensors[name].shape)}")
    model.load_state_dict(tensors)


def load_statistics(path: Path, config: dict) -> Statistics:
    return Statistics(json.loads((path / "norm_stats.json").read_text())["norm_stats"], config["normalization"])
