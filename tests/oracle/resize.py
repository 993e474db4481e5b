"""The ways in which an image of any size becomes a model's square input.

`pillow` and `torch_bilinear` keep the aspect ratio, truncate the new sides (in double precision, so the longer side can come out one pixel short),
and centre the result on black with the odd pixel at the right or the bottom:

    ratio = max(width / size, height / size)
    new_height, new_width = int(height / ratio), int(width / ratio)
    top, left = (size - new_height) // 2, (size - new_width) // 2

An image that already is `size` by `size` passes unchanged. An aspect ratio above `size` makes a side of 0 pixels, which
both references refuse.

`torchvision` and `lanczos4` stretch.
"""

import cv2  # a dependency of lerobot
import numpy as np
import torch
from lerobot.policies.common.vla_utils import resize_with_pad_torch
from PIL import Image
from torchvision.transforms import Resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pillow(image: np.ndarray, size: int) -> np.ndarray:
    """u8 (H, W, 3) to u8 (size, size, 3).

    Line by line what openpi_client/image_tools.py (`resize_with_pad`, `_resize_with_pad_pil`) of openpi-client 0.1.2 does;
    that package cannot be installed here since it asks for numpy 1.
    """
    if image.shape[:2] == (size, size):
        return image
    source = Image.fromarray(image)
    width, height = source.size
    ratio = max(width / size, height / size)
    new_height, new_width = int(height / ratio), int(width / ratio)
    resized = source.resize((new_width, new_height), resample=Image.BILINEAR)
    square = Image.new(resized.mode, (size, size), 0)
    top, left = max(0, int((size - new_height) / 2)), max(0, int((size - new_width) / 2))
    square.paste(resized, (left, top))
    return np.asarray(square)


def torch_bilinear(image: np.ndarray, size: int) -> torch.Tensor:
    """u8 (H, W, 3) to f32 (size, size, 3) in [0, 1]: lerobot's own function, called as its PI0 policy calls it."""
    pixels = torch.from_numpy(image.copy()).float()[None] / 255.0
    if pixels.shape[1:3] != (size, size):
        pixels = resize_with_pad_torch(pixels, size, size)
    return pixels[0]


def torchvision(image: np.ndarray, size: int) -> np.ndarray:
    """u8 (H, W, 3) to u8 (size, size, 3): the class, defaults and layout of GalaxeaVLA's configs/data/libero/default.yaml."""
    return Resize([size, size])(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def lanczos4(image: np.ndarray, size: int) -> np.ndarray:
    """u8 (H, W, 3) to u8 (size, size, 3): the call in open-pi-zero's src/agent/env_adapter/simpler.py."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LANCZOS4)


def unit(image: np.ndarray, size: int, mode: str) -> torch.Tensor:
    """u8 (H, W, 3) to f32 (1, 3, size, size) in [0, 1]."""
    if mode == "pillow_bilinear":
        square = torch.from_numpy(pillow(image, size).copy()).float() / 255.0
    else:
        square = torch_bilinear(image, size)
    return square.permute(2, 0, 1)[None].contiguous()


def for_vision(image: np.ndarray, size: int, mode: str) -> torch.Tensor:
    """SigLIP's input: [-1, 1], padding -1."""
    return unit(image, size, mode) * 2.0 - 1.0


def for_depth(image: np.ndarray, size: int, mode: str) -> torch.Tensor:
    """DINOv2's input: ImageNet mean and deviation, padding black before it."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (unit(image, size, mode) - mean) / std
