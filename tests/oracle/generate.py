"""Writes the golden tensors: `python generate.py [--live] [CASE…] --output DIR`. See tests/golden/README.md."""

import argparse
import hashlib
import json
import os
from pathlib import Path

# The same sums in the same order on every x86-64 processor; read when torch is imported.
os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE", ONEDNN_MAX_CPU_ISA="SSE41", HF_HUB_OFFLINE="1")

import numpy as np
import torch
from safetensors.torch import save_file

import resize
import seeded
from cases import CASES, LIVE
from depthvla import DepthVla


def depthvla_observation(case: dict) -> dict:
    config, seed = case["config"], case["seed"]
    images = {
        f"image.{view}": torch.from_numpy(seeded.image(seed, f"image.{view}", *case["images"][view]))
        for view in config["views"]
    }
    tokens = seeded.generator(seed, "tokens").integers(0, config["vocab"], case["prompt"])
    return {
        **images,
        "state": torch.from_numpy(seeded.normal(seed, "state", (case["state"],))),
        "tokens": torch.from_numpy(tokens.astype(np.int32)),
        "noise": torch.from_numpy(seeded.normal(seed, "noise", (config["horizon"], config["action_dim"]))),
    }


def depthvla_model(case: dict) -> DepthVla:
    model = DepthVla(case["config"]).eval().float()
    seeded.fill(model, case["seed"], case["qk_gain"])
    return model


def write_depthvla(case: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model, observation = depthvla_model(case), depthvla_observation(case)
    weights = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    (folder / "config.json").write_text(json.dumps(case["config"], indent=2) + "\n")
    save_file(weights, folder / "model.safetensors")
    save_file(observation, folder / "observation.safetensors")
    golden = {name: tensor.contiguous().clone() for name, tensor in model.infer(observation).items()}
    save_file(golden, folder / "golden.safetensors")


def write_resize(case: dict, folder: Path) -> None:
    tensors = {}
    for n, (height, width, size) in enumerate(case["images"]):
        image = seeded.image(case["seed"], str(n), height, width)
        tensors[f"in.{n}"] = torch.from_numpy(image)
        tensors[f"pillow.{n}"] = torch.from_numpy(resize.pillow(image, size).copy())
        tensors[f"torch.{n}"] = resize.torch_bilinear(image, size).contiguous()
        tensors[f"torchvision.{n}"] = torch.from_numpy(resize.torchvision(image, size).copy())
        tensors[f"lanczos4.{n}"] = torch.from_numpy(resize.lanczos4(image, size))
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder.with_suffix(".safetensors"))


def write_lerobot_pi0(case: dict, folder: Path) -> None:
    import lerobot_pi0

    lerobot_pi0.write(case, folder)


def write_chunks(case: dict, folder: Path) -> None:
    import chunks

    chunks.write(case, folder)


def write_depth_anything(case: dict, folder: Path) -> None:
    import depth_anything

    depth_anything.write(case, folder)


def write_composed(case: dict, folder: Path) -> None:
    import composed

    composed.write(case, folder)


def write_tokenizer(case: dict, folder: Path) -> None:
    import tokenizer

    tokenizer.write(case, folder)


def write_sums(output: Path) -> None:
    """SHA256SUMS of everything generated, in the format of sha256sum(1)."""
    files = sorted(p for p in output.rglob("*") if p.suffix in (".safetensors", ".json"))
    for path in files:
        path.chmod(0o644)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(output).as_posix()}\n" for p in files]
    (output / "SHA256SUMS").write_text("".join(lines))


WRITERS = {
    "depthvla": write_depthvla,
    "resize": write_resize,
    "lerobot_pi0": write_lerobot_pi0,
    "lerobot_pi05": write_lerobot_pi0,
    "chunks": write_chunks,
    "depth_anything": write_depth_anything,
    "composed": write_composed,
    "tokenizer": write_tokenizer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all committed cases when none is named")
    parser.add_argument("--live", action="store_true", help="all that are not committed")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    known = {case["name"]: case for case in CASES + LIVE}
    if unknown := set(arguments.cases) - set(known):
        parser.error(f"unknown case {sorted(unknown)}; there are {sorted(known)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in arguments.cases or [case["name"] for case in (LIVE if arguments.live else CASES)]:
        WRITERS[known[name]["kind"]](known[name], arguments.output / name)
        print(name)
    write_sums(arguments.output)


if __name__ == "__main__":
    main()
