"""Reads a data set with lerobot's own loader, and prints what it finds as JSON.

Usage: read_set.py DIRECTORY
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import DataLoader


def main(root):
    data = LeRobotDataset("fathom/scene", root=root)
    first = data[0]
    depth_key = data.meta.depth_keys[0]
    batch = next(iter(DataLoader(data, batch_size=4, shuffle=True)))
    ahead = LeRobotDataset("fathom/scene", root=root, delta_timestamps={"action": [0.0, 1 / data.fps]})
    second = LeRobotDataset("fathom/scene", root=root, episodes=[1])
    found = {
        "frames": len(data),
        "episodes": data.num_episodes,
        "fps": data.fps,
        "tasks": list(data.meta.tasks.index),
        "task": first["task"],
        "shapes": {key: list(value.shape) for key, value in first.items() if hasattr(value, "shape")},
        "batch": {key: list(value.shape) for key, value in batch.items() if hasattr(value, "shape")},
        "plan_first": first["action.plan"].flatten().tolist(),
        "depth_m": [float(first[depth_key].min()), float(first[depth_key].max())],
        "image_max": float(first["observation.images.base"].max()),
        "ahead": list(ahead[0]["action"].shape),
        "second_episode": sorted({int(second[i]["episode_index"]) for i in range(len(second))}),
        "stats": {
            feature: {name: list(np.asarray(value).shape) for name, value in stats.items()}
            for feature, stats in data.meta.stats.items()
        },
    }
    print(json.dumps(found))


main(sys.argv[1])
