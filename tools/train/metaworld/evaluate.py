"""A policy of fathom-serve in Meta-World, by openpi's own client: `evaluate.py --port PORT --episodes N`; `--expert` lets the scripted
experts act in its place. Prints a row for each task with Wilson's interval at 95 %."""

import argparse
import json
import math
import sys

import numpy as np

from world import LIMIT, TASKS, World, state


def wilson(successes: int, count: int) -> tuple:
    z, n, p = 1.96, count, successes / count
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (middle - half) / scale, (middle + half) / scale


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--episodes", type=int, default=50, help="episodes of each task")
    parser.add_argument("--steps", type=int, default=8, help="steps of a chunk that are executed")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode's goal; demonstrations have smaller ones")
    parser.add_argument("--expert", action="store_true")
    parser.add_argument("--json")
    a = parser.parse_args()
    policy = None
    if not a.expert:
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        policy = WebsocketClientPolicy("127.0.0.1", a.port)
    result = {}
    for task, prompt in TASKS.items():
        successes = 0
        for number in range(a.episodes):
            world = World(task, a.seed + number)
            observation, done, step, chunk = world.reset(number), False, 0, []
            while step < LIMIT and not done:
                if policy is None:
                    action = world.expert.get_action(observation)
                else:
                    if not len(chunk):
                        base, wrist = world.draw()
                        request = {"observation.images.base": base, "observation.images.wrist": wrist,
                                   "observation.state": state(observation), "task": prompt}
                        chunk = policy.infer(request)["actions"][: a.steps]
                    action, chunk = chunk[0], chunk[1:]
                observation, done = world.step(np.asarray(action))
                step += 1
            successes += done
        low, high = wilson(successes, a.episodes)
        result[task] = [successes, a.episodes]
        print(f"{task:26} {successes:4}/{a.episodes:<4} {100 * successes / a.episodes:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]", flush=True)
    if a.json:
        with open(a.json, "w") as file:
            json.dump(result, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
