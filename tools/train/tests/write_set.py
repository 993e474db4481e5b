"""Writes a small LeRobot v3.0 data set with lerobot's own writer: `python write_set.py DIRECTORY [EPISODES] [FRAMES]`.

Two views of a flat picture with three coloured squares on pedestals of depth; the task names one, and the action goes from
the state to its place. It can be learnt, and every optional feature is there.
"""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

SIDE, DIMS, HORIZON, FPS = 112, 6, 16, 15
COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 200)}
TASKS = ["reach for the {}", "pick up the {} block", "put the {} cylinder on the white plate"]


def features() -> dict:
    names = [f"joint_{i}.pos" for i in range(DIMS)]
    image = {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    depth = {
        "dtype": "image",
        "shape": (SIDE, SIDE, 1),
        "names": ["height", "width", "channels"],
        "info": {"is_depth_map": True, "depth_unit": "mm"},
    }
    return {
        "observation.images.base": image,
        "observation.images.wrist": image,
        "observation.depth.base": depth,
        "observation.state": {"dtype": "float32", "shape": (DIMS,), "names": names},
        "action": {"dtype": "float32", "shape": (DIMS,), "names": names},
        "action.plan": {"dtype": "float32", "shape": (HORIZON, DIMS), "names": None},
        "annotation.pixel": {"dtype": "float32", "shape": (2, 2, 2), "names": None},
    }


def frame(rng: np.random.Generator, places: np.ndarray, named: int, state: np.ndarray) -> dict:
    base = np.full((SIDE, SIDE, 3), 120, np.uint8) + rng.integers(0, 8, (SIDE, SIDE, 1), np.uint8)
    depth = np.linspace(900, 700, SIDE, dtype=np.uint16)[:, None].repeat(SIDE, 1)
    depth[:6] = 0
    for (x, y), colour in zip(places, COLOURS.values(), strict=True):
        rows, columns = (slice(int(v * SIDE) - 6, int(v * SIDE) + 6) for v in (y, x))
        base[rows, columns], depth[rows, columns] = colour, 600
    goal = np.zeros(DIMS, np.float32)
    goal[:2] = places[named] * 2 - 1
    steps = (np.arange(HORIZON, dtype=np.float32)[:, None] + 1) / HORIZON
    plan = state + (goal - state) * steps
    pixel = np.full((2, 2, 2), -1, np.float32)
    pixel[0, 0], pixel[1, 0], pixel[0, 1] = places[named], 1 - places[named], places[(named + 1) % 3]
    return {
        "observation.images.base": base,
        "observation.images.wrist": np.ascontiguousarray(base[::-1, ::-1]),
        "observation.depth.base": depth[..., None],
        "observation.state": state.astype(np.float32),
        "action": plan[0].astype(np.float32),
        "action.plan": plan.astype(np.float32),
        "annotation.pixel": pixel,
    }


def main() -> None:
    episodes, frames = (int(a) for a in (sys.argv[2:4] or (12, 12)))
    rng = np.random.default_rng(0)
    data = LeRobotDataset.create("fathom/test", FPS, features(), root=sys.argv[1], use_videos=False, image_writer_threads=1)
    for episode in range(episodes):
        named = episode % 3
        places = rng.uniform(0.15, 0.85, (3, 2))
        state = rng.normal(0, 0.4, DIMS).astype(np.float32)
        for _ in range(frames):
            f = frame(rng, places, named, state)
            data.add_frame({**f, "task": TASKS[episode // 3 % 3].format(list(COLOURS)[named])})
            state = f["action"]
        data.save_episode()
    data.finalize()


if __name__ == "__main__":
    main()
