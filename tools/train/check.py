"""Compares a model directory in PyTorch with Fathom's runtime: `check.py DIRECTORY --data DATA [--count 3]`.

For frames of the data set, through tokenizer and statistics: normalised actions within 1e-4, actions in the robot's own units
within 1e-4, depth within 1e-3 of itself. $FATHOM is the command of the runtime (default: tools/fathom).
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import export
import settings as configuration
from data import Dataset
from model import DepthVla
from prompts import Tokenizer

ACTIONS, DEPTH = 1e-4, 1e-3


def compare(directory: Path, data_settings: dict, count: int, command: list[str]) -> list[dict]:
    """The largest differences of each observation."""
    config = configuration.check_model(json.loads((directory / "config.json").read_text()), str(directory / "config.json"))
    model = DepthVla(config)
    export.load_weights(model, directory)
    statistics, tokenizer = export.load_statistics(directory, config), Tokenizer.open(directory / "tokenizer.json")
    data = Dataset(data_settings, config, 0, lambda _: None, statistics, tokenizer)
    found = []
    for frame in np.linspace(0, len(data.state) - 1, count).astype(int):
        batch = data.batch(np.array([frame]))
        noise = torch.randn(1, config["horizon"], config["action_dim"], generator=torch.Generator().manual_seed(int(frame)))
        with torch.no_grad():
            prefix = model.prefix(batch["images"], batch["depth_images"], batch["tokens"], batch["lengths"])
            actions = model.sample(prefix, batch["state"], noise)[0]
        task = data.tasks[data.task[frame]]
        images = {f"image.{view}": batch["images"][0, i].contiguous() for i, view in enumerate(config["views"])}
        with tempfile.TemporaryDirectory() as folder:
            observation = {**images, "state": torch.from_numpy(data.state[frame].copy()), "noise": noise[0]}
            save_file(observation, f"{folder}/in.safetensors", {"prompt": task})
            run = subprocess.run(
                [*command, "infer", "--software", "--model", str(directory), "--observation", f"{folder}/in.safetensors",
                 "--output", f"{folder}/out.safetensors"], capture_output=True, text=True, check=False,
            )
            if run.returncode:
                raise RuntimeError(f"{shlex.join(command)} infer failed: {run.stderr}")
            out = load_file(f"{folder}/out.safetensors")
        own = data.action.shape[1]
        absolute = statistics.unnormalize("actions", actions[:, :own].numpy())
        n = min(own, data.state.shape[1])
        absolute[:, :n] += (data.relative * np.pad(data.state[frame], (0, own - n))[:own])[:n]
        difference = {
            "task": task,
            "normalized": float((actions - out["actions.normalized"]).abs().max()),
            "actions": float(np.abs(absolute - out["actions"].numpy()[:, :own]).max()),
        }
        if prefix["depth"] is not None:
            for i, view in enumerate(config["depth"]["views"]):
                own_map, theirs = model.depth_map(prefix["depth"])[0, i], out[f"depth.{view}"]
                difference[f"depth.{view}"] = float(((own_map - theirs) / theirs).abs().max())
        found.append(difference)
    return found


def failures(found: list[dict]) -> list[str]:
    return [
        f"{d['task']!r}: {name}: expected a difference of at most {DEPTH if name.startswith('depth') else ACTIONS}, found {value}"
        for d in found for name, value in d.items()
        if name != "task" and not value <= (DEPTH if name.startswith("depth") else ACTIONS)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare a model directory in PyTorch with Fathom's runtime.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--data", required=True, help="data set from which the observations are taken")
    parser.add_argument("--count", type=int, default=3, help="observations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command = shlex.split(os.environ.get("FATHOM", str(Path(__file__).resolve().parents[1] / "fathom")))
    recorded = arguments.directory / "training.json"
    given = json.loads(recorded.read_text())["settings"]["data"] if recorded.exists() else dict(configuration.DATA)
    found = compare(arguments.directory, {**given, "path": arguments.data}, arguments.count, command)
    for difference in found:
        print(difference)
    for failure in (wrong := failures(found)):
        print(failure, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
