"""Demonstrations of Meta-World's scripted experts as a LeRobot v3.0 set: `demos.py OUTPUT --episodes N`.

The executed actions have noise, the labels are the expert's for the state that came about (DART, arXiv 1703.09327). A frame is kept every
`EVERY` steps; `action.plan` holds the expert's labels of the steps that follow.
"""

import argparse
import multiprocessing
import sys
import warnings
from pathlib import Path

import numpy as np

from world import LIMIT, SIDE, TASKS, World, state

HORIZON, EVERY, NOISE = 16, 4, 0.25
# Steps after success: the policy must learn to stay.
AFTER = 12
# Depth is kept up to this, in metres.
FAR_M = 5.0


def episode(arguments: tuple) -> tuple:
    """Task, whether it succeeded, and frames: images, depth in millimetres, state, action, plan."""
    number, seed = arguments
    task = list(TASKS)[number % len(TASKS)]
    random = np.random.default_rng((seed, number))
    world = World(task, seed + number)
    observation = world.reset(int(random.integers(50)))
    scale = NOISE * random.choice((0.0, 0.5, 1.0))
    labels, kept, done, since = [], [], False, 0
    for step in range(LIMIT):
        label = np.clip(world.expert.get_action(observation), -1, 1).astype(np.float32)
        if step % EVERY == 0:
            depth = world.depth()
            millimetres = np.where(depth < FAR_M, np.round(depth * 1000), 0).astype(np.uint16)
            kept.append((step, world.draw(), millimetres, state(observation)))
        labels.append(label)
        noise = random.normal(0, scale, 4) * (1, 1, 1, 0)
        observation, success = world.step(label + noise)
        done |= success
        since += done
        if since > AFTER:
            break
    labels += [labels[-1]] * HORIZON
    return task, done, [(*rest, labels[step], np.stack(labels[step : step + HORIZON])) for step, *rest in kept]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--episodes", type=int, default=750)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    a = parser.parse_args()
    warnings.filterwarnings("ignore")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.images.base": image,
        "observation.images.wrist": image,
        "observation.depth.base": {**image, "shape": (SIDE, SIDE, 1)},
        "observation.state": {"dtype": "float32", "shape": (4,), "names": None},
        "action": {"dtype": "float32", "shape": (4,), "names": None},
        "action.plan": {"dtype": "float32", "shape": (HORIZON, 4), "names": None},
    }
    data = LeRobotDataset.create("fathom/metaworld", fps=80 // EVERY, features=features, root=a.output, use_videos=False)
    failed = 0
    with multiprocessing.get_context("spawn").Pool(a.processes) as pool:
        for number, (task, done, frames) in enumerate(pool.imap(episode, ((n, a.seed) for n in range(a.episodes)), chunksize=4)):
            failed += not done
            for images, millimetres, own, action, plan in frames:
                data.add_frame({
                    "observation.images.base": images[0], "observation.images.wrist": images[1],
                    "observation.depth.base": millimetres[..., None], "observation.state": own, "action": action, "action.plan": plan,
                    "task": TASKS[task],
                })
            data.save_episode()
            if number % 20 == 19:
                print(f"{number + 1} of {a.episodes} episodes, {failed} without success", file=sys.stderr, flush=True)
    data.finalize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
