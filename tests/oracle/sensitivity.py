"""Proves that the goldens of the DepthVLA cases notice: alters one thing at a time and demands a change in some stage.

Every choice of the configuration, every entry of the block mask and every weight is altered, except what has no effect by
construction. The least change that counts is ten times the tolerance of the comparison with Fathom.
"""

import copy
import sys

from generate import depthvla_model, depthvla_observation  # first: it settles how torch computes

import torch

import depthvla
import seeded
from cases import CASES

LEAST = 1e-3

# (path in the configuration, other value); applied where it differs from the case's own.
ALTERATIONS = [
    ("resize", "pillow_bilinear"),
    ("resize", "torch_bilinear"),
    ("attention.rope_theta", 20000.0),
    ("attention.softcap", None),
    ("attention.softcap", 50.0),
    ("rms_eps", 1e-2),
    ("vision.eps", 1e-2),
    ("embed.text", 1.0),
    ("embed.image", 2.0),
    ("embed.suffix", 2.0),
    ("positions", {"mode": "global", "base": 0}),
    ("positions", {"mode": "global", "base": 1}),
    ("positions", {"mode": "per_mixture", "base": 0}),
    ("positions", {"mode": "per_mixture", "base": 1}),
    ("time_embedding", {"kind": "openpi", "min_period": 0.004, "max_period": 4.0}),
    ("time_embedding", {"kind": "open_pi_zero", "max_period": 100.0}),
    ("time_embedding", {"kind": "open_pi_zero", "max_period": 10000.0}),
    ("flow.direction", "noise_at_one"),
    ("flow.direction", "noise_at_zero"),
    ("flow.clip", None),
    ("flow.clip", 1.0),
    ("depth.pos_base", 0),
    ("depth.pos_base", 1),
    ("depth.pos_base", 5),
    ("depth.proprio_sees_depth", True),
    ("depth.proprio_sees_depth", False),
    ("depth.scale_input", 2.0),
    ("depth.pos_interpolation", "size"),
    ("depth.pos_interpolation", "offset"),
    ("depth.encoder.eps", 1e-2),
    ("depth.head", "log"),
    ("depth.head", "linear"),
    ("depth.head", "sigmoid"),
]


def change(golden: dict, other: dict) -> tuple[float, str]:
    """The largest change of a stage relative to its largest magnitude, and that stage."""
    return max((float((other[n] - t).abs().max() / t.abs().max()), n) for n, t in golden.items())


def outcome(model, observation: dict, golden: dict) -> tuple[float, str]:
    try:
        return change(golden, model.infer(observation))
    except AssertionError:
        return float("inf"), "the promise that nothing cached depends on the actions"


def with_config(case: dict, path: str, value):
    """The case's model with one field altered, or None where that is the case's own value."""
    altered = copy.deepcopy(case)
    *parents, field = path.split(".")
    section = altered["config"]
    for parent in parents:
        section = section[parent]
    if section[field] == value:
        return None
    section[field] = value
    return depthvla_model(altered)


def has_no_effect(name: str, layers: int) -> bool:
    """A key's bias shifts all logits of a query alike; of the VLM's last layer only keys and values are used."""
    if name.endswith(("self_attn.k_proj.bias", "attention.key.bias")):
        return True
    last = f"joint_model.mixtures.vlm.layers.{layers - 1}."
    return name.startswith(last) and not any(part in name for part in ("input_layernorm", "k_proj", "v_proj"))


def check(case: dict) -> list[str]:
    model, observation = depthvla_model(case), depthvla_observation(case)
    golden = model.infer(observation)
    failures, smallest, altered = [], (float("inf"), ""), 0

    def expect(what: str, result: tuple[float, str]) -> None:
        nonlocal smallest, altered
        altered += 1
        smallest = min(smallest, (result[0], what))
        if not result[0] >= LEAST:
            failures.append(f"{case['name']}: {what} changes nothing: {result[0]:.1e} in {result[1]}")

    for path, value in ALTERATIONS:
        if (other := with_config(case, path, value)) is not None:
            expect(f"{path} = {value}", outcome(other, observation, golden))
    own_sees = depthvla.SEES
    for query in own_sees:
        for key in own_sees:
            if (query, key) != ("state", "depth") and (query, key) != ("state", "state"):
                depthvla.SEES = {**own_sees, query: own_sees[query] ^ {key}}
                if depthvla.SEES[query]:
                    expect(f"mask: {query} to {key}", outcome(model, observation, golden))
    depthvla.SEES = own_sees
    for name, tensor in observation.items():
        other = {**observation, name: 255 - tensor if name.startswith("image.") else (tensor + 1) % 32}
        expect(name, outcome(model, other, golden))
    for name, parameter in model.named_parameters():
        own = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(seeded.weight(case["seed"] + 100, name, parameter.shape, case["qk_gain"]))
        result = outcome(model, observation, golden)
        with torch.no_grad():
            parameter.copy_(own)
        if has_no_effect(name, case["config"]["layers"]):
            if result[0] > 1e-5:
                failures.append(f"{case['name']}: {name} should have no effect: {result[0]:.1e} in {result[1]}")
        else:
            expect(name, result)
    print(f"{case['name']}: {altered} alterations, the least visible: {smallest[1]}, {smallest[0]:.1e}")
    return failures


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = [failure for case in CASES if case["kind"] == "depthvla" for failure in check(case)]
    print("\n".join(found))
    sys.exit(bool(found))
