"""The losses of a training, by name, and the measures of a validation.

flow         flow matching (arXiv 2210.02747, pi0's form): mean squared error of the velocity at K times of each chunk.
depth_l1     mean |log d̂ − log d|.
depth_silog  scale-invariant log loss sqrt(mean(y²) − ½ mean(y)²), y = log d̂ − log d, of each map (DepthVLA, section 1.5 of
             the paper's notes; Eigen et al. 2014).
grounding    which patch of each view holds the middle of the named object, and of the place-on target, and where in the
             patch: cross-entropy + 4 · squared error, of a linear head on the VLM's RMS-normed hidden states before its last
             layer. The head exists in training only. It stands for the detection that PaliGemma was pretrained on.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from model import DepthVla, Linear


class Grounding(nn.Module):
    """(B, V, patches, 2 rows, 3): logit, and offset (x, y) in patches from the patch's middle."""

    def __init__(self, width: int):
        super().__init__()
        self.head = Linear(width, 6)

    def forward(self, hidden: torch.Tensor, views: int) -> torch.Tensor:
        b, n, w = hidden.shape
        return self.head(F.rms_norm(hidden.float(), (w,))).float().view(b, views, n // views, 2, 3)


def flow_times(b: int, k: int, config: dict, generator: torch.Generator) -> torch.Tensor:
    """Times (B, K): t ~ Beta(1.5, 1) · 0.999 + 0.001 towards the noise (openpi), the first of several in 0.9 to 1 of it."""
    t = torch.rand(b, k, generator=generator) ** (1 / 1.5) * 0.999 + 0.001  # Beta(a, 1) has the distribution function x^a
    if k > 1:
        t[:, 0] = 1 - 0.1 * torch.rand(b, generator=generator)
    return t if config["flow"]["direction"] == "noise_at_one" else 1 - t


def noisy(actions: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, config: dict) -> tuple:
    """x_t (B, K, H, A) and its velocity, of chunks (B, H, A) and noise (B, K, H, A)."""
    a, t = actions[:, None], t[..., None, None]
    if config["flow"]["direction"] == "noise_at_one":
        return (1 - t) * a + t * noise, noise - a
    rest = 1 - (config["flow"]["sig_min"] or 0.0)  # open-pi-zero `psi_t`
    return t * a + (1 - rest * t) * noise, a - rest * noise


def log_depth(model: DepthVla, values: torch.Tensor) -> torch.Tensor:
    """Log depth of the head's output."""
    if model.config["depth"]["head"] == "log":
        return values
    return model.depth_map(values).clamp(min=1e-3).log()


def depth_losses(model: DepthVla, values: torch.Tensor, batch: dict, wanted) -> dict:
    weight = batch["depth_weight"]
    y = (log_depth(model, values) - batch["log_depth"]) * weight
    out = {}
    if "depth_l1" in wanted:
        out["depth_l1"] = y.abs().sum() / weight.sum().clamp(min=1)
    if "depth_silog" in wanted:
        count = weight.sum((-1, -2)).clamp(min=1)
        square, mean = (y * y).sum((-1, -2)) / count, y.sum((-1, -2)) / count
        out["depth_silog"] = (square - 0.5 * mean * mean + 1e-8).sqrt().mean()
    return out


def cells(pixel: torch.Tensor, grid: int) -> tuple:
    """Of places (…, 2) as fractions of the image: which are within it, the patch's index, and the offset from its middle."""
    inside = ((pixel >= 0) & (pixel < 1)).all(-1)
    at = pixel.clamp(0, 1 - 1e-6) * grid
    cell = at.floor()
    return inside, (cell[..., 1] * grid + cell[..., 0]).long(), at - cell - 0.5


def grounding_loss(prediction: torch.Tensor, pixel: torch.Tensor, grid: int) -> torch.Tensor:
    inside, index, offset = cells(pixel, grid)  # (B, V, 2)
    prediction = prediction.permute(0, 1, 3, 2, 4)[inside]  # (n, patches, 3)
    if not len(prediction):
        return prediction.sum()
    at = prediction[torch.arange(len(prediction), device=index.device), index[inside], 1:]
    return F.cross_entropy(prediction[..., 0], index[inside]) + 4 * ((at - offset[inside]) ** 2).mean()


def losses(model: DepthVla, grounding: Grounding, batch: dict, weights: dict, k: int, generator: torch.Generator,
           part: tuple = (0, 1)) -> dict:
    """The named losses of a batch. `part` = (rank, processes): the batch is that part of a greater one, for which the random
    numbers are drawn, so that they do not depend on how it was divided."""
    config, wanted = model.config, set(weights)
    depth_wanted = wanted & {"depth_l1", "depth_silog"}
    if wanted <= depth_wanted:  # the depth branch alone
        return depth_losses(model, model.depth(batch["depth_images"])[1], batch, wanted)
    if "flow" not in wanted and not depth_wanted:
        images, views = batch["images"], batch["images"].shape[1]
        hidden = model.vlm(images, batch["tokens"], batch["lengths"])[2][:, : views * model.grid**2]
        return {"grounding": grounding_loss(grounding(hidden, views), batch["pixel"], model.grid)}
    prefix = model.prefix(batch["images"], batch["depth_images"], batch["tokens"], batch["lengths"], bool(depth_wanted))
    out = depth_losses(model, prefix["depth"], batch, wanted) if depth_wanted else {}
    if "grounding" in wanted:
        views = batch["images"].shape[1]
        hidden = prefix["hidden"][:, : prefix["image_tokens"]]
        out["grounding"] = grounding_loss(grounding(hidden, views), batch["pixel"], model.grid)
    if "flow" in wanted:
        actions = batch["actions"]
        b, (rank, parts) = len(actions), part
        own = slice(rank * b, (rank + 1) * b)
        t = flow_times(b * parts, k, config, generator)[own].to(actions.device)
        noise = torch.randn(b * parts, k, *actions.shape[1:], generator=generator)[own].to(actions.device)
        x, target = noisy(actions, noise, t, config)
        error = ((model.velocity(prefix, batch["state"], x, t) - target) ** 2).mean(-1)  # (B, K, H)
        valid = batch["valid"][:, None].to(error.dtype)
        out["flow"] = (error * valid).sum() / (valid.sum() * k).clamp(min=1)
    return out


class Measures:
    """Means over a validation, by name."""

    def __init__(self):
        self.sums = {}

    def add(self, name: str, total: float, count: float) -> None:
        s = self.sums.setdefault(name, [0.0, 0.0])
        s[0] += float(total)
        s[1] += float(count)

    def means(self) -> dict:
        return {name: total / count for name, (total, count) in self.sums.items() if count}


@torch.no_grad()
def validate(model: DepthVla, grounding: Grounding, data, frames, weights: dict, seed: int, device: str, autocast,
             batch_size: int = 32) -> dict:
    """Losses on held-out frames; `action_error` (mean |sampled − label|, in the units of the action: rad for the demo's arm)
    and `action_error_last` of a chunk's last step; `abs_rel` and `delta1` (share with max(d̂/d, d/d̂) < 1.25) over all pixels
    with a true depth and over the near ones (20 mm nearer than the pixel's median: arm and objects); `grounding_named` and
    `grounding_target`, the share of right patches."""
    measures, generator = Measures(), torch.Generator().manual_seed(seed)
    median = data.near_threshold()
    depth_only = set(weights) <= {"depth_l1", "depth_silog"}
    for first in range(0, len(frames), batch_size):
        batch = {k: v.to(device) for k, v in data.batch(frames[first : first + batch_size]).items()}
        n = len(batch["state"])
        with autocast():
            for name, value in losses(model, grounding, batch, weights, 8, generator).items():
                measures.add(name, float(value) * n, n)
            if depth_only:
                prefix = {"depth": model.depth(batch["depth_images"])[1]}
            else:
                prefix = model.prefix(batch["images"], batch["depth_images"], batch["tokens"], batch["lengths"])
            noise = torch.randn(batch["actions"].shape, generator=generator).to(device)
            sample = None if depth_only else model.sample(prefix, batch["state"], noise)
        if sample is not None and "flow" in weights:
            own = data.action.shape[1]
            scale = torch.tensor(data.statistics.maps["actions"][1], device=device)
            error = ((sample - batch["actions"])[..., :own].abs() * scale).mean(-1) * batch["valid"]
            measures.add("action_error", error.sum(), batch["valid"].sum())
            measures.add("action_error_last", error[:, -1].sum(), batch["valid"][:, -1].sum())
        if prefix["depth"] is not None and "log_depth" in batch:
            difference = log_depth(model, prefix["depth"]).float() - batch["log_depth"]
            near = batch["log_depth"].exp() < torch.from_numpy(median).to(device) - 0.02
            for name, mask in (("", batch["has_depth"]), ("_near", batch["has_depth"] & near)):
                d = difference[mask]
                measures.add(f"abs_rel{name}", (d.exp() - 1).abs().sum(), d.numel())
                measures.add(f"delta1{name}", (d.abs() < math.log(1.25)).sum(), d.numel())
        if "grounding" in weights and not depth_only:
            views = batch["images"].shape[1]
            prediction = grounding(prefix["hidden"][:, : prefix["image_tokens"]], views)
            inside, index, _ = cells(batch["pixel"], model.grid)
            right = prediction[..., 0].argmax(2) == index
            for row, name in enumerate(("named", "target")):
                measures.add(f"grounding_{name}", (right & inside)[..., row].sum(), inside[..., row].sum())
    return measures.means()


def jitter(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """u8 images (N, V, S, S, 3) with brightness, contrast and each channel's gain drawn from 1 ± `amount`."""
    n, v = images.shape[:2]
    draw = lambda *shape: 1 + amount * (2 * torch.rand(*shape, generator=generator) - 1)
    x = images.float()
    mean = x.mean((2, 3, 4), keepdim=True)
    x = (x - mean) * draw(n, v, 1, 1, 1) + mean * draw(n, v, 1, 1, 1)
    return (x * draw(n, v, 1, 1, 3)).round().clamp(0, 255).to(torch.uint8)
