"""openpi's own client against a server: `openpi.py PORT`. Prints the actions' shape and the time that an answer takes."""

import sys
import time

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main() -> None:
    policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
    random = np.random.default_rng(0)
    image = lambda: random.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    observation = {
        "observation.images.base": image(), "observation.images.wrist": image(),
        "observation.state": random.normal(size=6), "task": "reach for the red block",
    }
    first = policy.infer(observation)
    assert first["actions"].shape == (16, 6) and first["actions"].dtype == np.float64, first["actions"].shape
    assert "prev_total_ms" not in first["server_timing"], first["server_timing"]
    observation["observation.images.base"] = observation["observation.images.base"].transpose(2, 0, 1)
    times = []
    for _ in range(5):
        began = time.monotonic()
        answer = policy.infer(observation)
        times.append((time.monotonic() - began) * 1e3 - answer["policy_timing"]["infer_ms"])
    assert answer["server_timing"]["prev_total_ms"] > 0
    # The broker hands out one step after the other, slicing every array of an answer.
    broker = ActionChunkBroker(policy, action_horizon=4)
    steps = [broker.infer(observation)["actions"] for _ in range(5)]
    assert all(step.shape == (6,) for step in steps)
    try:
        policy.infer({"task": "nothing else"})
    except RuntimeError as error:
        assert "observation.images.base" in str(error), error
    else:
        raise AssertionError("a request without images was answered")
    print(f"openpi-client: actions {first['actions'].shape}; beside the inference an answer took {min(times):.2f} to {max(times):.2f} ms")


main()
