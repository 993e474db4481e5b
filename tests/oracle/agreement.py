"""The origins' own code, with the same weights, computes the stages that the PyTorch DepthVLA computes.

* lerobot's PI0 is the DepthVLA without a depth branch, in every case of it: also with a padded prompt, with masked
  cameras, with the prefix's keys and values kept from step to step, and with the state token computed anew in each.
* lerobot's PI0 and PI0.5 give the same whether a camera is masked or was never there.
* transformers' PaliGemma makes of images and prompt the image features and the keys and values of the VLM.
"""

from generate import CASES, LIVE, depthvla_model, depthvla_observation  # first: it settles how torch computes

import copy
import sys
from math import sqrt

import torch
from transformers import PaliGemmaConfig, PaliGemmaModel, SiglipVisionConfig

import lerobot_pi0
import resize
from compare import tensor_error
from depthvla import DepthVla, gemma_config

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
    """That of a DepthVLA with the sizes of a case of lerobot's PI0."""
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


def pi0_without_depth(case: dict) -> tuple[dict, dict]:
    """lerobot's stages, and those of the DepthVLA without a depth branch."""
    policy, observation, (preprocessor, _), golden, _ = lerobot_pi0.run(case)
    weights = {renamed(n): t for n, t in policy.state_dict().items() if not n.endswith(UNUSED)}
    model = DepthVla(configuration(case)).eval()
    model.load_state_dict(weights)
    state = lerobot_pi0.prepare(case, observation, preprocessor)["observation.state"][0]
    stages = model.infer({**observation, "state": state})
    without = lambda tensors: {name: t for name, t in tensors.items() if name != "actions"}
    return without(golden), without(stages)


def without_the_masked(case: dict) -> tuple[dict, dict]:
    """lerobot's stages with masked cameras, and without."""
    other = copy.deepcopy(case)
    other["policy"]["empty_cameras"] = 0
    return lerobot_pi0.run(case)[3], lerobot_pi0.run(other)[3]


@torch.no_grad()
def paligemma(case: dict) -> tuple[dict, dict]:
    """PaliGemma's image features, keys and values, and the DepthVLA's. PaliGemma numbers its tokens from 1 and scales
    text alone, so the DepthVLA does."""
    case = copy.deepcopy(case)
    config = case["config"]
    width = config["vlm"]["width"]
    config["positions"] = {"mode": "global", "base": 1}
    config["embed"] |= {"text": sqrt(width), "image": 1.0}
    config["attention"]["softcap"] = None
    model, observation = depthvla_model(case), depthvla_observation(case)
    stages = {n: t for n, t in model.infer(observation).items() if n.split(".")[0] in ("vision", "projector", "vlm")}

    vision = config["vision"]
    text = gemma_config(config, config["vlm"])
    # One more token, which stands for a patch.
    text.vocab_size = config["vocab"] + 1
    siglip = SiglipVisionConfig(
        hidden_size=vision["width"],
        intermediate_size=vision["mlp"],
        num_hidden_layers=vision["layers"],
        num_attention_heads=vision["heads"],
        image_size=vision["image_size"],
        patch_size=vision["patch"],
        layer_norm_eps=vision["eps"],
        projection_dim=width,
        vision_use_head=False,
    )
    both = PaliGemmaConfig(
        vision_config=siglip, text_config=text, image_token_index=config["vocab"], projection_dim=width
    )
    origin = PaliGemmaModel(both).eval()
    state = origin.state_dict()
    for name, tensor in model.state_dict().items():
        name = name.replace("joint_model.mixtures.vlm.", "language_model.")
        if name.startswith(("vision_tower.", "multi_modal_projector.", "language_model.")):
            state[name].copy_(tensor)
    state["language_model.embed_tokens.weight"][: config["vocab"]] = model.embed_tokens.weight

    views = config["views"]
    images = [observation[f"image.{view}"].numpy() for view in views]
    pixels = torch.cat([resize.for_vision(i, vision["image_size"], config["resize"]) for i in images])
    patches = (vision["image_size"] // vision["patch"]) ** 2
    tokens = torch.cat((torch.full((len(views) * patches,), config["vocab"]), observation["tokens"].long()))
    # A prefix that all tokens belong to.
    kinds = torch.zeros_like(tokens)[None]
    output = origin(input_ids=tokens[None], token_type_ids=kinds, pixel_values=pixels, use_cache=True)
    features = origin.get_image_features(pixels)
    golden = {f"vision.{view}": features.last_hidden_state[i] for i, view in enumerate(views)}
    golden |= {f"projector.{view}": features.pooler_output[i] for i, view in enumerate(views)}
    for i, layer in enumerate(output.past_key_values.layers):
        for part, tensor in (("k", layer.keys), ("v", layer.values)):
            golden[f"vlm.layers.{i}.{part}"] = tensor[0].transpose(0, 1).flatten(1)
    return golden, stages


def agree(what: str, golden: dict, stages: dict) -> bool:
    """Says how far the stages are apart, which must be the same ones."""
    errors = {name: tensor_error(golden[name], stages[name]) for name in golden.keys() & stages.keys()}
    worst = max(errors, key=errors.get)
    print(f"{what}: {len(errors)} stages, the largest difference {errors[worst]:.1e} in {worst}")
    if odd := golden.keys() ^ stages.keys():
        print(f"  only one has {sorted(odd)}")
    return not odd and errors[worst] <= TOLERANCE


def main() -> int:
    torch.set_num_threads(1)
    cases = CASES + LIVE
    of = lambda *kinds: [case for case in cases if case["kind"] in kinds]
    failed = [
        not agree(f"lerobot's PI0 and DepthVLA without depth, {case['name']}", *pi0_without_depth(case))
        for case in of("lerobot_pi0")
    ]
    failed += [
        not agree(f"lerobot with and without masked cameras, {case['name']}", *without_the_masked(case))
        for case in of("lerobot_pi0", "lerobot_pi05")
        if case["policy"]["empty_cameras"]
    ]
    failed += [
        not agree(f"transformers' PaliGemma and the VLM, {case['name']}", *paligemma(case)) for case in of("depthvla")
    ]
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
