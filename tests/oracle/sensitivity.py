"""Proves that the goldens notice: alters one thing at a time and demands a change in some stage.

Every choice of the configuration, every entry of the block mask, every input and every weight is altered, except what has
no effect by construction. The least change that counts is ten times the tolerance of the comparison with Fathom.
"""

import copy
import sys

from generate import depthvla_model, depthvla_observation  # first: it settles how torch computes

import torch
from transformers import DPTImageProcessor

import depth_anything
import depthvla
import lerobot_pi0
import seeded
from cases import CASES

LEAST = 1e-3

# (path in the case, other value); applied where it differs from the case's own.
DEPTHVLA = [
    ("config.resize", "pillow_bilinear"),
    ("config.resize", "torch_bilinear"),
    ("config.attention.rope_theta", 20000.0),
    ("config.attention.softcap", None),
    ("config.attention.softcap", 50.0),
    ("config.rms_eps", 1e-2),
    ("config.vision.eps", 1e-2),
    ("config.embed.text", 1.0),
    ("config.embed.image", 2.0),
    ("config.embed.suffix", 2.0),
    ("config.positions", {"mode": "global", "base": 0}),
    ("config.positions", {"mode": "global", "base": 1}),
    ("config.positions", {"mode": "per_mixture", "base": 0}),
    ("config.positions", {"mode": "per_mixture", "base": 1}),
    ("config.time_embedding", {"kind": "openpi", "min_period": 0.004, "max_period": 4.0}),
    ("config.time_embedding", {"kind": "open_pi_zero", "max_period": 100.0}),
    ("config.time_embedding", {"kind": "open_pi_zero", "max_period": 10000.0}),
    ("config.flow.direction", "noise_at_one"),
    ("config.flow.direction", "noise_at_zero"),
    ("config.flow.clip", None),
    ("config.flow.clip", 1.0),
    ("config.depth.pos_base", 0),
    ("config.depth.pos_base", 1),
    ("config.depth.pos_base", 5),
    ("config.depth.proprio_sees_depth", True),
    ("config.depth.proprio_sees_depth", False),
    ("config.depth.scale_input", 2.0),
    ("config.depth.pos_interpolation", "size"),
    ("config.depth.pos_interpolation", "offset"),
    ("config.depth.encoder.eps", 1e-2),
    ("config.depth.head", "log"),
    ("config.depth.head", "linear"),
    ("config.depth.head", "sigmoid"),
]

LEROBOT = [
    ("policy.num_inference_steps", 3),
    ("policy.min_period", 0.008),
    ("policy.max_period", 2.0),
    ("policy.normalization_mapping.ACTION", "MIN_MAX"),
]

DEPTH_ANYTHING = [
    ("processor.image_mean", [0.5, 0.5, 0.5]),
    ("processor.image_std", [0.25, 0.25, 0.25]),
    ("processor.resample", 2),
    ("processor.size", {"height": 98, "width": 98}),
    ("backbone.out_indices", [1, 2, 3, 4]),
    ("backbone.num_attention_heads", 1),
    ("backbone.layer_norm_eps", 1e-2),
    ("config.depth_estimation_type", "relative"),
    ("config.depth_estimation_type", "metric"),
]
# What matters to one of the two only: an oblong photo, and metres.
OF_KIND = {"relative": [("processor.keep_aspect_ratio", False)], "metric": [("config.max_depth", 10)]}


class Subject:
    """A case's model, what it is given, and how its stages are made of that."""

    def __init__(self, case: dict):
        if case["kind"] == "depthvla":
            self.model, self.observation = depthvla_model(case), depthvla_observation(case)
            self.stages = self.model.infer
            self.alterations = DEPTHVLA
        elif case["kind"] == "depth_anything":
            self.model, self.observation = depth_anything.build(case), {"image": depth_anything.photo(case)}
            processor = DPTImageProcessor(**case["processor"])
            self.stages = lambda given: depth_anything.infer(self.model, processor, given["image"])
            self.alterations = DEPTH_ANYTHING + OF_KIND[case["config"]["depth_estimation_type"]]
        else:
            self.model, self.observation, processors, _, _ = lerobot_pi0.run(case)
            self.stages = lambda given: lerobot_pi0.infer(case, self.model, given, *processors)
            self.alterations = LEROBOT

    def outcome(self, observation: dict, golden: dict) -> tuple[float, str]:
        """The largest change of a stage relative to its largest magnitude, and that stage."""
        try:
            found = self.stages(observation)
        except AssertionError:
            return float("inf"), "the promise that nothing cached depends on the actions"
        changes = [(change(found[n], t), n) for n, t in golden.items() if n in found]
        return max(changes)


def change(found: torch.Tensor, golden: torch.Tensor) -> float:
    if found.shape != golden.shape:
        return float("inf")
    return float((found - golden).abs().max() / golden.abs().max())


def altered(case: dict, path: str, value):
    """The case with one field altered, or None where that is the case's own value."""
    case = copy.deepcopy(case)
    *parents, field = path.split(".")
    section = case
    for parent in parents:
        section = section[parent]
    if section.get(field) == value:
        return None
    section[field] = value
    return case


def has_no_effect(case: dict, name: str) -> bool:
    """A key's bias shifts all logits of a query alike; of the VLM's last layer only keys and values are used, and no head;
    Depth Anything's deepest fusion has nothing to add to."""
    if name.endswith(("self_attn.k_proj.bias", "attention.key.bias", "lm_head.weight", "language_model.norm.weight")):
        return True
    if case["kind"] == "depth_anything":
        return "fusion_stage.layers.0.residual_layer1" in name or name.endswith("mask_token")
    last = (case["config"] if case["kind"] == "depthvla" else case)["layers"] - 1
    of_the_last = f"mixtures.vlm.layers.{last}." in name or f"language_model.layers.{last}." in name
    return of_the_last and not any(part in name for part in ("input_layernorm", "k_proj", "v_proj"))


def check(case: dict) -> list[str]:
    subject = Subject(case)
    model, observation = subject.model, subject.observation
    golden = subject.stages(observation)
    failures, smallest, count = [], (float("inf"), ""), 0

    def expect(what: str, result: tuple[float, str]) -> None:
        nonlocal smallest, count
        count += 1
        smallest = min(smallest, (result[0], what))
        if not result[0] >= LEAST:
            failures.append(f"{case['name']}: {what} changes nothing: {result[0]:.1e} in {result[1]}")

    for path, value in subject.alterations:
        if (other := altered(case, path, value)) is not None:
            expect(f"{path} = {value}", Subject(other).outcome(observation, golden))
    if case["kind"] == "depthvla":
        own_sees = depthvla.SEES
        for query in own_sees:
            for key in own_sees:
                if (query, key) != ("state", "depth") and (query, key) != ("state", "state"):
                    depthvla.SEES = {**own_sees, query: own_sees[query] ^ {key}}
                    if depthvla.SEES[query]:
                        expect(f"mask: {query} to {key}", subject.outcome(observation, golden))
        depthvla.SEES = own_sees
    for name, tensor in observation.items():
        # PI0.5's state is in its prompt's text, of which a stand-in makes tokens.
        if (case["kind"], name) != ("lerobot_pi05", "state"):
            other = {**observation, name: 255 - tensor if name.startswith("image") else (tensor + 1) % 32}
            expect(name, subject.outcome(other, golden))
    for name, parameter in model.named_parameters():
        own = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(seeded.weight(case["seed"] + 100, name, parameter.shape, case["qk_gain"]))
        result = subject.outcome(observation, golden)
        with torch.no_grad():
            parameter.copy_(own)
        if has_no_effect(case, name):
            if result[0] > 1e-5:
                failures.append(f"{case['name']}: {name} should have no effect: {result[0]:.1e} in {result[1]}")
        else:
            expect(name, result)
    print(f"{case['name']}: {count} alterations, the least visible: {smallest[1]}, {smallest[0]:.1e}", flush=True)
    return failures


if __name__ == "__main__":
    torch.set_num_threads(1)
    models = ("depthvla", "depth_anything", *lerobot_pi0.ORIGINS)
    found = [failure for case in CASES if case["kind"] in models for failure in check(case)]
    print("\n".join(found))
    sys.exit(bool(found))
