"""Random weights and inputs that depend on a seed and a name alone: another tensor in the model changes no other tensor."""

import zlib

import numpy as np
import torch


def generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


def normal(seed: int, name: str, shape) -> np.ndarray:
    return generator(seed, name).standard_normal(tuple(shape)).astype(np.float32)


def image(seed: int, name: str, height: int, width: int) -> np.ndarray:
    """u8 (H, W, 3): a slope per channel, a bright box and noise, so that smooth parts, edges and single pixels all occur."""
    rng = generator(seed, name)
    y, x = np.mgrid[0:height, 0:width]
    slopes = rng.uniform(-1, 1, (3, 2))
    channels = [a * x / max(width - 1, 1) + b * y / max(height - 1, 1) for a, b in slopes]
    pixels = 110 + 60 * np.stack(channels, axis=-1) + rng.normal(0, 30, (height, width, 3))
    pixels[height // 4 : height // 2, width // 3 : width // 2] += rng.uniform(-120, 120, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def weight(seed: int, name: str, shape, qk_gain: float) -> torch.Tensor:
    """A weight that keeps activations near 1 and lets every part show in the result, rounded to bf16 and given as f32."""
    noise = normal(seed, name, shape)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    if name.endswith("lambda1"):
        value = generator(seed, name).uniform(0.5, 1.0, shape)
    elif name.endswith("bias"):
        value = 0.1 * noise
    elif "norm" in name:
        zero_centred = name.startswith("joint_model.") or "paligemma_with_expert" in name and "vision_tower" not in name
        value = (0.0 if zero_centred else 1.0) + 0.1 * noise
    elif "position_embedding" in name:
        value = 0.3 * noise
    elif "cls_token" in name:
        value = 0.5 * noise
    elif "embed_tokens" in name or "lm_head" in name:
        value = noise / np.sqrt(shape[-1])
    elif "q_proj" in name or "k_proj" in name or ".query." in name or ".key." in name:
        value = qk_gain * noise / np.sqrt(fan_in)
    elif name.startswith("depth_head"):
        value = 0.5 * noise / np.sqrt(fan_in)
    else:
        value = noise / np.sqrt(fan_in)
    return torch.from_numpy(np.asarray(value, dtype=np.float32)).bfloat16().float()


@torch.no_grad()
def fill(module: torch.nn.Module, seed: int, qk_gain: float, prefix: str = "") -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(weight(seed, prefix + name, parameter.shape, qk_gain))
