"""lerobot's own PI0 and PI0.5, run and saved by lerobot's own code.

Only sizes are changed: lerobot takes the expert widths from `get_gemma_config` and hard-codes SigLIP's sizes and the
vocabulary, so these are replaced; its tokenizer is on the network, so a stand-in hands over the case's tokens.
"""

import json
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.types import NormalizationMode
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi0.modeling_pi0 import PI0Policy
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pi05.modeling_pi05 import PI05Policy
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors.torch import save_file

import seeded

# The module, the configuration and the policy of each kind of case.
ORIGINS = {
    "lerobot_pi0": (modeling_pi0, PI0Config, PI0Policy),
    "lerobot_pi05": (modeling_pi05, PI05Config, PI05Policy),
}
HEADS = 8
PATCH = 14
TOKENIZER = "lerobot.processor.tokenizer_processor.AutoTokenizer.from_pretrained"


@contextmanager
def small_sizes(case: dict):
    """lerobot's PI0 or PI0.5 with the sizes of `case`."""
    modeling = ORIGINS[case["kind"]][0]
    full_paligemma = modeling.PaliGemmaForConditionalGenerationWithPiGemma
    full_gemma = modeling.PiGemmaForCausalLM

    def gemma_config(variant: str):
        sizes = case["vlm"] if variant == "gemma_2b" else case["expert"]
        return modeling.GemmaConfig(sizes["width"], case["layers"], sizes["mlp"], HEADS, 1, case["head_dim"])

    def paligemma(config):
        sizes, vision = case["vision"], config.vision_config
        config._vocab_size = config.image_token_index = config.text_config.vocab_size = case["vocab"]
        config.projection_dim = vision.projection_dim = case["vlm"]["width"]
        vision.hidden_size, vision.intermediate_size = sizes["width"], sizes["mlp"]
        vision.num_hidden_layers, vision.num_attention_heads = sizes["layers"], sizes["heads"]
        vision._attn_implementation = "eager"
        return full_paligemma(config=config)

    def gemma(config):
        config.vocab_size = case["vocab"]
        return full_gemma(config=config)

    with (
        patch.object(modeling, "get_gemma_config", gemma_config),
        patch.object(modeling, "PaliGemmaForConditionalGenerationWithPiGemma", paligemma),
        patch.object(modeling, "PiGemmaForCausalLM", gemma),
    ):
        yield


class Tokenizer:
    """Gives the case's tokens for any text, padded as the processor asks, and keeps the text."""

    def __init__(self, tokens: list[int]):
        self.tokens, self.text = tokens, None

    def __call__(self, text, max_length: int, **_) -> dict:
        (self.text,) = text
        padding = max_length - len(self.tokens)
        ids = torch.tensor([self.tokens + [0] * padding])
        return {"input_ids": ids, "attention_mask": torch.tensor([[1] * len(self.tokens) + [0] * padding])}


def statistics(case: dict) -> dict:
    """Dataset statistics as lerobot keeps them: far from 0 and 1, one narrow dimension."""
    stats = {}
    for key, size in (("observation.state", case["state"]), ("action", case["action"])):
        rng = seeded.generator(case["seed"], f"{key}.stats")
        mean, std = rng.normal(0, 2, size), rng.uniform(0.3, 3.0, size)
        std[-1] = 0.01
        low, high = mean - 3 * std, mean + 3 * std
        values = {"mean": mean, "std": std, "min": low, "max": high}
        if case["kind"] == "lerobot_pi05":
            values |= {"q01": mean - 2 * std, "q99": mean + 1.5 * std}
        stats[key] = {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}
    return stats


def make_policy(case: dict) -> PreTrainedPolicy:
    _, configuration, policy_class = ORIGINS[case["kind"]]
    images = {
        f"observation.images.{view}": PolicyFeature(type=FeatureType.VISUAL, shape=(3, *size))
        for view, size in case["images"].items()
    }
    modes = {kind: NormalizationMode(mode) for kind, mode in case["policy"]["normalization_mapping"].items()}
    config = configuration(
        input_features={
            **images,
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(case["state"],)),
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(case["action"],))},
        device="cpu",
        push_to_hub=False,
        n_action_steps=case["policy"]["chunk_size"],
        image_resolution=(case["vision"]["image_size"],) * 2,
        **case["policy"] | {"normalization_mapping": modes},
    )
    with small_sizes(case):
        policy = policy_class(config).eval().float()
    seeded.fill(policy, case["seed"], case["qk_gain"])
    return policy


def make_observation(case: dict, stats: dict) -> dict:
    """What Fathom gets: raw images, the state in the robot's units, the prompt's tokens without padding, the noise."""
    seed, policy = case["seed"], case["policy"]
    state = stats["observation.state"]
    normal = torch.from_numpy(seeded.normal(seed, "state", (case["state"],)))
    tokens = seeded.generator(seed, "tokens").integers(0, case["vocab"], case["prompt"])
    noise = seeded.normal(seed, "noise", (policy["chunk_size"], policy["max_action_dim"]))
    images = {
        f"image.{view}": torch.from_numpy(seeded.image(seed, f"image.{view}", *size))
        for view, size in case["images"].items()
    }
    return {
        **images,
        "state": state["mean"] + state["std"] * normal,
        "tokens": torch.from_numpy(tokens.astype(np.int32)),
        "noise": torch.from_numpy(noise),
    }


class Taps:
    """Records the stages of one `predict_action_chunk` without changing what lerobot computes."""

    def __init__(self, policy: PreTrainedPolicy, case: dict, text: int):
        self.tensors, self.model, self.case, self.text = {}, policy.model, case, text
        self.views, self.step = iter(case["images"]), 0
        self.cache = None

    def vision(self, _module, _inputs, output):
        self.view = next(self.views, None)
        if self.view is not None:
            self.tensors[f"vision.{self.view}"] = output.last_hidden_state[0]

    def projector(self, _module, _inputs, output):
        # Cameras that are never there come after those that are.
        if self.view is not None:
            self.tensors[f"projector.{self.view}"] = output[0]

    def clone(self, cache):
        """The prefix's keys and values; lerobot appends the suffix's to the clone."""
        self.cache = self.full_clone(cache)
        return self.cache

    def denoise(self, **arguments):
        v = self.full_denoise(**arguments)
        self.tensors[f"velocity.{self.step}"] = v[0]
        valid = arguments["prefix_pad_masks"][0]
        prefix = valid.shape[0]
        patches = (self.case["vision"]["image_size"] // PATCH) ** 2
        assert int(valid.sum()) == len(self.case["images"]) * patches + self.text
        for i, layer in enumerate(self.cache.layers):
            for part, tensor in (("k", layer.keys), ("v", layer.values)):
                rows = tensor[0].transpose(0, 1).flatten(1)
                self.keep(f"vlm.layers.{i}.{part}", rows[:prefix][valid])
                if self.case["kind"] == "lerobot_pi0":
                    self.keep(f"state.layers.{i}.{part}", rows[prefix : prefix + 1])
        self.step += 1
        return v

    def sample(self, *arguments, **named):
        actions = self.full_sample(*arguments, **named)
        self.tensors["actions.normalized"] = actions[0]
        return actions

    def keep(self, name: str, tensor: torch.Tensor):
        """Stages that every flow step repeats."""
        torch.testing.assert_close(tensor, self.tensors.setdefault(name, tensor), rtol=1e-5, atol=1e-5)

    @contextmanager
    def attached(self):
        paligemma = self.model.paligemma_with_expert.paligemma.model
        hooks = [
            paligemma.vision_tower.register_forward_hook(self.vision),
            paligemma.multi_modal_projector.register_forward_hook(self.projector),
        ]
        modeling = ORIGINS[self.case["kind"]][0]
        self.full_clone, self.full_denoise = modeling.clone_past_key_values, self.model.denoise_step
        self.full_sample = self.model.sample_actions
        with (
            patch.object(modeling, "clone_past_key_values", self.clone),
            patch.object(self.model, "denoise_step", self.denoise),
            patch.object(self.model, "sample_actions", self.sample),
        ):
            yield self
        for hook in hooks:
            hook.remove()


def prepare(case: dict, observation: dict, preprocessor) -> dict:
    """The batch that the policy takes."""
    for step in preprocessor.steps:
        if isinstance(tokenizer := getattr(step, "input_tokenizer", None), Tokenizer):
            tokenizer.tokens = observation["tokens"].tolist()
    images = {
        f"observation.images.{view}": observation[f"image.{view}"].permute(2, 0, 1).float() / 255.0
        for view in case["images"]
    }
    return preprocessor({**images, "observation.state": observation["state"], "task": case.get("task", "reach")})


def infer(case: dict, policy: PreTrainedPolicy, observation: dict, preprocessor, postprocessor) -> dict:
    """Every stage of one inference, by the names of `golden.safetensors`."""
    batch = prepare(case, observation, preprocessor)
    with Taps(policy, case, observation["tokens"].numel()).attached() as taps:
        actions = policy.predict_action_chunk(batch, noise=observation["noise"][None])
    return {**taps.tensors, "actions": postprocessor(actions)[0]}


def run(case: dict):
    stats = statistics(case)
    policy, observation = make_policy(case), make_observation(case, stats)
    tokenizer = Tokenizer(observation["tokens"].tolist())
    with patch(TOKENIZER, lambda *_, **__: tokenizer):
        processors = make_pre_post_processors(policy.config, dataset_stats=stats)
    golden = infer(case, policy, observation, *processors)
    return policy, observation, processors, golden, tokenizer.text


def check_reload(case: dict, folder: Path, observation: dict, golden: dict) -> None:
    """The files alone give the same actions through lerobot's own loading."""
    tokenizer = Tokenizer(observation["tokens"].tolist())
    with small_sizes(case), patch(TOKENIZER, lambda *_, **__: tokenizer):
        policy = ORIGINS[case["kind"]][2].from_pretrained(folder)
        processors = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    again = infer(case, policy, observation, *processors)
    for name, tensor in golden.items():
        assert torch.equal(again[name], tensor), f"{name} differs after loading {folder}"


def write(case: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    policy, observation, processors, golden, text = run(case)
    policy.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    check_reload(case, folder, observation, golden)
    # What the shapes of the tensors cannot tell.
    hints = {"heads": HEADS, "kv_heads": 1, "vision_heads": case["vision"]["heads"], "patch": PATCH}
    (folder / "fathom.json").write_text(json.dumps(hints) + "\n")
    save_file(observation, folder / "observation.safetensors")
    # The text that lerobot made of the task and the state, where it has more than the task.
    metadata = {"prompt": text} if case["kind"] == "lerobot_pi05" else None
    save_file({k: v.contiguous().clone() for k, v in golden.items()}, folder / "golden.safetensors", metadata)
