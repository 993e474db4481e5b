"""Depth Anything as transformers runs it, from a photo to a depth map: `DPTImageProcessor`, then
`DepthAnythingForDepthEstimation`, shrunk and with random weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

import seeded


@torch.no_grad()
def build(case: dict) -> DepthAnythingForDepthEstimation:
    backbone = Dinov2Config(**case["backbone"], patch_size=14, reshape_hidden_states=False)
    width = case["backbone"]["hidden_size"]
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=width, **case["config"])
    model = DepthAnythingForDepthEstimation(config).eval().float()
    seeded.fill(model, case["seed"], case["qk_gain"])
    # Random weights alone leave next to nothing above 0 for the last ReLU.
    model.head.conv3.bias.fill_(0.0 if case["head_bias"] is None else case["head_bias"])
    if case["head_bias"] is None:
        # A quarter of the map is 0.
        last = []
        hook = model.head.conv3.register_forward_hook(lambda module, inputs, output: last.append(output))
        model(DPTImageProcessor(**case["processor"])(images=photo(case).numpy(), return_tensors="pt")["pixel_values"])
        hook.remove()
        model.head.conv3.bias.fill_(float(-last[0].quantile(0.25).bfloat16()))
    return model


def photo(case: dict) -> torch.Tensor:
    return torch.from_numpy(seeded.image(case["seed"], "image", *case["image"]))


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) to (H · W, C)."""
    return tensor[0].flatten(1).T.contiguous()


@torch.no_grad()
def infer(model: DepthAnythingForDepthEstimation, processor: DPTImageProcessor, image: torch.Tensor) -> dict:
    stages: dict[str, torch.Tensor] = {}

    def keep(name: str):
        return lambda module, inputs, output: stages.update({name: channels_last(output)})

    hooks = [m.register_forward_hook(keep(f"map.{i}")) for i, m in enumerate(model.neck.convs)]
    hooks += [m.register_forward_hook(keep(f"fused.{i}")) for i, m in enumerate(model.neck.fusion_stage.layers)]
    hooks += [model.head.conv1.register_forward_hook(keep("head.0"))]
    pixels = processor(images=image.numpy(), return_tensors="pt")["pixel_values"]
    stages["patches"] = F.unfold(pixels, 14, stride=14)[0].T.contiguous()
    for i, tap in enumerate(model.backbone(pixels).feature_maps):
        stages[f"tap.{i}"] = tap[0, 1:].contiguous()
    depth = model(pixels).predicted_depth
    for hook in hooks:
        hook.remove()
    stages["depth"] = depth[0].contiguous()
    # What the origin offers for the photo's own size.
    resized = processor.post_process_depth_estimation(type("Output", (), {"predicted_depth": depth}), [image.shape[:2]])
    stages["original_size"] = resized[0]["predicted_depth"].contiguous()
    return stages


def write(case: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model, processor = build(case), DPTImageProcessor(**case["processor"])
    image = photo(case)
    golden = infer(model, processor, image)
    zeros = float((golden["depth"] == 0).float().mean())
    assert zeros < 0.5, f"{zeros:.0%} of the map are 0"
    save_file(golden, folder / "golden.safetensors")
    save_file({"image": image}, folder / "observation.safetensors")
    processor.save_pretrained(folder)
    # The weights are bf16 values already; transformers gives them the names that they have on the hub.
    model.bfloat16().save_pretrained(folder)
