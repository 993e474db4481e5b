"""The PyTorch DepthVLA with the depth branch off, given lerobot's PI0 weights, computes what lerobot's PI0 computes."""

from generate import CASES  # first: it settles how torch computes

import sys
from math import sqrt

import torch

import lerobot_pi0
from compare import tensor_error
from depthvla import DepthVla

TOLERANCE = 1e-5

RENAMED = [
    ("paligemma_with_expert.paligemma.model.language_model.embed_tokens.", "embed_tokens."),
    ("paligemma_with_expert.paligemma.model.language_model.layers.", "joint_model.mixtures.vlm.layers."),
    ("paligemma_with_expert.paligemma.model.", ""),
    ("paligemma_with_expert.gemma_expert.model.", "joint_model.mixtures.action."),
    ("state_proj.", "proprio_encoder."),
    ("action_in_proj.", "action_encoder.linear_1."),
    ("action_time_mlp_in.", "action_encoder.linear_2."),
    ("action_time_mlp_out.", "action_encoder.linear_3."),
    ("action_out_proj.", "action_decoder."),
]
UNUSED = ("lm_head.weight", "language_model.norm.weight")


def renamed(name: str) -> str:
    name = name.removeprefix("model.")
    for old, new in RENAMED:
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise KeyError(name)


def configuration(case: dict) -> dict:
    policy = case["policy"]
    return {
        "views": list(case["images"]),
        "resize": "torch_bilinear",
        "vocab": case["vocab"],
        "state_dim": policy["max_state_dim"],
        "action_dim": policy["max_action_dim"],
        "horizon": policy["chunk_size"],
        "layers": case["layers"],
        "attention": {
            "heads": lerobot_pi0.HEADS,
            "kv_heads": 1,
            "head_dim": case["head_dim"],
            "rope_theta": 10000.0,
            "softcap": None,
        },
        "rms_eps": 1e-6,
        "vision": {**case["vision"], "patch": lerobot_pi0.PATCH, "eps": 1e-6},
        "vlm": case["vlm"],
        "action": case["expert"],
        "depth": None,
        "state_token": True,
        "embed": {"text": sqrt(case["vlm"]["width"]), "image": 1.0, "suffix": 1.0},
        "time_embedding": {"kind": "openpi", "min_period": 0.004, "max_period": 4.0},
        "flow": {"steps": policy["num_inference_steps"], "direction": "noise_at_one", "clip": None},
        "positions": {"mode": "global", "base": 0},
        "action_head_layers": 1,
    }


def main() -> int:
    torch.set_num_threads(1)
    case = next(case for case in CASES if case["kind"] == "lerobot_pi0")
    policy, observation, _, golden, _ = lerobot_pi0.run(case)
    weights = {renamed(n): t for n, t in policy.state_dict().items() if not n.endswith(UNUSED)}
    model = DepthVla(configuration(case)).eval()
    model.load_state_dict(weights)
    stats = lerobot_pi0.statistics(case)["observation.state"]
    state = (observation["state"] - stats["mean"]) / (stats["std"] + 1e-8)
    stages = model.infer({**observation, "state": state})
    errors = {name: tensor_error(golden[name], tensor) for name, tensor in stages.items() if name != "actions"}
    worst = max(errors, key=errors.get)
    print(f"lerobot's PI0: {len(errors)} stages, the largest difference {errors[worst]:.1e} in {worst}")
    return int(errors[worst] > TOLERANCE or len(errors) != len(golden) - 1)


if __name__ == "__main__":
    sys.exit(main())
