"""What lerobot's own code makes of chunks: real-time chunking of its PI0 and PI0.5, and ACT's temporal ensemble.

Written to `chunks.safetensors`, by the name of the case: `<case>.left.<delay>` is what the robot still follows, in its
own units; `<case>.<schedule>.<delay>` are the normalised actions that are drawn towards it. `ensemble.in.<n>` and
`ensemble.out.<n>` are chunks, one a step, and the action that is taken of each.
"""

from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import torch
from lerobot.configs import RTCAttentionSchedule
from lerobot.policies.act.modeling_act import ACTTemporalEnsembler
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from safetensors.torch import save_file

import lerobot_pi0
import seeded
from cases import CASES


def guided(case: dict, settings: dict) -> dict:
    stats = lerobot_pi0.statistics(case)
    policy, observation = lerobot_pi0.make_policy(case), lerobot_pi0.make_observation(case, stats)
    tokenizer = lerobot_pi0.Tokenizer(observation["tokens"].tolist())
    with patch(lerobot_pi0.TOKENIZER, lambda *_, **__: tokenizer):
        preprocessor, postprocessor = make_pre_post_processors(policy.config, dataset_stats=stats)
    batch = lerobot_pi0.prepare(case, observation, preprocessor)
    # The chunk before has other noise, as it would.
    noise = torch.from_numpy(seeded.normal(case["seed"], "chunk before", tuple(observation["noise"].shape)))
    before = policy.predict_action_chunk(deepcopy(batch), noise=noise[None])
    tensors = {}
    for delay, consumed in settings["delays"]:
        left = before[:, consumed:]
        tensors[f"left.{delay}"] = postprocessor(left.clone())[0]
        for schedule in RTCAttentionSchedule:
            policy.config.rtc_config = RTCConfig(
                prefix_attention_schedule=schedule,
                max_guidance_weight=settings["most"],
                execution_horizon=settings["horizon"],
            )
            policy.init_rtc_processor()
            actions = policy.predict_action_chunk(
                deepcopy(batch),
                noise=observation["noise"][None],
                inference_delay=delay,
                prev_chunk_left_over=left,
                execution_horizon=settings["horizon"],
            )
            tensors[f"{schedule.value.lower()}.{delay}"] = actions[0]
    return tensors


def ensemble(settings: dict) -> dict:
    chunks, horizon, joints = settings["chunks"], settings["horizon"], settings["joints"]
    ensembler = ACTTemporalEnsembler(settings["decay"], horizon)
    tensors = {}
    for n in range(chunks):
        chunk = torch.from_numpy(seeded.normal(settings["seed"], f"chunk {n}", (horizon, joints)))
        tensors[f"in.{n}"] = chunk
        tensors[f"out.{n}"] = ensembler.update(chunk[None])[0]
    return tensors


def write(case: dict, folder: Path) -> None:
    tensors = {f"ensemble.{name}": tensor for name, tensor in ensemble(case["ensemble"]).items()}
    for name in case["of"]:
        (of,) = (c for c in CASES if c["name"] == name)
        tensors |= {f"{name}.{key}": tensor for key, tensor in guided(of, case["guided"]).items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, folder.with_suffix(".safetensors"))
