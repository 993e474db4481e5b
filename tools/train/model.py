"""DepthVLA in PyTorch, batched and trainable: the mathematics of `tests/oracle/depthvla.py`, arranged for training.

Paper: arXiv 2510.13375. Three experts (VLM, depth, action) share the attention of every layer under a block mask:

    query     sees
    VLM       VLM                          (images and text, bidirectional)
    depth     depth                        (bidirectional)
    state     VLM, depth*, state           (* `depth.proprio_sees_depth`)
    action    VLM, depth, state, action    (bidirectional within a chunk)

VLM and depth therefore do not depend on the noisy actions: their keys and values are computed once, and several noises of
one observation share them (`velocity` takes K chunks in one sequence, none of which sees another).

The names in `state_dict()` are the tensor names of a Fathom model directory, the configuration is its `config.json`.
Shapes: B observations, V views, T text tokens, S image side, K noises, H horizon, A action dimensions, W widths.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Largest weight that is joined with its neighbours into one product: joining copies it.
JOINED = 1 << 20


class Group(nn.Module):
    """Named parts, so that a checkpoint's dotted names need no class for each level."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Linear(nn.Linear):
    """A Linear with weights drawn from N(0, (gain² / inputs)), and an optional low-rank adapter (LoRA, arXiv 2106.09685)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gain: float = 1.0):
        super().__init__(inputs, outputs, bias)
        nn.init.normal_(self.weight, std=gain / math.sqrt(inputs))
        if bias:
            nn.init.zeros_(self.bias)
        self.adapter_scale = 0.0

    def adapt(self, rank: int, alpha: float) -> None:
        """Adds `alpha / rank · B A` to the weight; B is 0, so that the function is unchanged at first."""
        out, inputs = self.weight.shape
        a = torch.randn(rank, inputs, device=self.weight.device) / math.sqrt(inputs)
        self.lora_a, self.lora_b = nn.Parameter(a), nn.Parameter(torch.zeros(out, rank, device=self.weight.device))
        self.adapter_scale = alpha / rank

    def merge(self) -> None:
        """Folds the adapter into the weight and removes it."""
        if self.adapter_scale:
            with torch.no_grad():
                self.weight += self.adapter_scale * (self.lora_b @ self.lora_a)
            del self.lora_a, self.lora_b
            self.adapter_scale = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.adapter_scale:
            y = y + self.adapter_scale * F.linear(F.linear(x, self.lora_a), self.lora_b)
        return y


def joined(x: torch.Tensor, linears: list[Linear]) -> torch.Tensor:
    """Several Linears of one input, side by side in the last dimension; small ones as one product."""
    if any(l.adapter_scale or l.weight.numel() > JOINED for l in linears):
        return torch.cat([l(x) for l in linears], -1)
    bias = None if linears[0].bias is None else torch.cat([l.bias for l in linears])
    return F.linear(x, torch.cat([l.weight for l in linears]), bias)


class RmsNormFunction(torch.autograd.Function):
    """`x / sqrt(mean(x²) + eps) · w` over the last dimension. PyTorch's own takes twice as long backwards on a CPU."""

    @staticmethod
    def forward(ctx, x, w, eps):
        inverse = torch.rsqrt((x * x).mean(-1, keepdim=True).add_(eps))
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, w)
        return unit * w

    @staticmethod
    def backward(ctx, gradient):
        unit, inverse, w = ctx.saved_tensors
        gradient = gradient.to(unit.dtype)
        product = (gradient * unit).flatten(0, -2)
        mean = (product @ w).div_(-unit.shape[-1]).view(*unit.shape[:-1], 1)
        return torch.addcmul(gradient * w, unit, mean).mul_(inverse), product.sum(0), None


class RmsNorm(nn.Module):
    """Gemma's: the stored weight is zero-centred (the factor is `1 + weight`)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return RmsNormFunction.apply(x.float(), 1 + self.weight, self.eps)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask=None, softcap=None) -> torch.Tensor:
    """Attention of q (B, heads, N, D) to k, v (B, kv_heads, M, D): (B, N, heads · D).

    `mask` is added to the logits (broadcast to (B, N, M)). Written as two products and a softmax: PyTorch's fused attention
    is slower backwards on a CPU at these sizes.
    """
    b, heads, n, d = q.shape
    kv, m = k.shape[1], k.shape[2]
    logits = (q * d**-0.5).reshape(b, kv, heads // kv * n, d) @ k.transpose(2, 3)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = (logits.view(b, heads, n, m) + mask[:, None]).view(b, kv, -1, m)
    out = logits.softmax(-1).to(v.dtype) @ v
    return out.view(b, heads, n, d).transpose(1, 2).reshape(b, n, heads * d)


def rotate(x: torch.Tensor, rope: tuple) -> torch.Tensor:
    """RoPE of x (B, heads, N, D) by the pairs (i, i + D/2); rope = cos, sin (1 or B, 1, N, D/2)."""
    cos, sin = rope
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def rope_table(positions: torch.Tensor, head_dim: int, theta: float) -> tuple:
    """cos, sin (…, 1, N, D/2) of positions (…, N)."""
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim)
    angle = (positions.double()[..., None] * frequency)[..., None, :, :]
    return angle.cos().float(), angle.sin().float()


def time_embedding(kind: dict, t: torch.Tensor, width: int) -> torch.Tensor:
    """[sin ∥ cos] of the flow time t (…): (…, width), computed in f64."""
    n = width // 2
    i = torch.arange(n, dtype=torch.float64, device=t.device)
    if kind["kind"] == "openpi":
        period = kind["min_period"] * (kind["max_period"] / kind["min_period"]) ** (i / (n - 1))
        angle = 2 * math.pi * t.double()[..., None] / period
    else:
        angle = t.double()[..., None] * torch.exp(-i * math.log(kind["max_period"]) / (n - 1))
    return torch.cat((angle.sin(), angle.cos()), -1).float()


def patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """u8 images (N, S, S, 3) to (N, grid², 3, patch²) f32 of 0 to 255; rows and columns beyond the grid are dropped."""
    n, grid = images.shape[0], images.shape[1] // patch
    images = images[:, : grid * patch, : grid * patch].reshape(n, grid, patch, grid, patch, 3)
    return images.permute(0, 1, 3, 5, 2, 4).reshape(n, grid * grid, 3, patch * patch).float()


def patch_embedding(width: int, patch: int) -> Group:
    std = 1 / math.sqrt(3 * patch * patch)
    return Group(weight=nn.Parameter(torch.randn(width, 3, patch, patch) * std), bias=nn.Parameter(torch.zeros(width)))


def embed_patches(x: torch.Tensor, projection: Group) -> torch.Tensor:
    return F.linear(x.flatten(2), projection.weight.flatten(1), projection.bias)


class SiglipLayer(nn.Module):
    """x += attention(LN(x)); x += fc2(gelu_tanh(fc1(LN(x))))."""

    def __init__(self, config: dict, gain: float):
        super().__init__()
        w, self.heads = config["width"], config["heads"]
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(w, eps=config["eps"]) for _ in range(2))
        self.self_attn = Group(
            q_proj=Linear(w, w), k_proj=Linear(w, w), v_proj=Linear(w, w), out_proj=Linear(w, w, gain=gain)
        )
        self.mlp = Group(fc1=Linear(w, config["mlp"]), fc2=Linear(config["mlp"], w, gain=gain))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, (n, t, w) = self.self_attn, x.shape
        qkv = joined(self.layer_norm1(x), [a.q_proj, a.k_proj, a.v_proj])
        q, k, v = qkv.view(n, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        x = x + a.out_proj(attend(q, k, v))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.layer_norm2(x)), approximate="tanh"))


class Dinov2Layer(nn.Module):
    """As SigLIP's, with an exact GELU and a learned scale of each branch (LayerScale)."""

    def __init__(self, config: dict, gain: float):
        super().__init__()
        w, self.heads = config["width"], config["heads"]
        self.norm1, self.norm2 = (nn.LayerNorm(w, eps=config["eps"]) for _ in range(2))
        self.attention = Group(
            attention=Group(query=Linear(w, w), key=Linear(w, w), value=Linear(w, w)),
            output=Group(dense=Linear(w, w, gain=gain)),
        )
        self.layer_scale1, self.layer_scale2 = (Group(lambda1=nn.Parameter(torch.ones(w))) for _ in range(2))
        self.mlp = Group(fc1=Linear(w, config["mlp"]), fc2=Linear(config["mlp"], w, gain=gain))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, (n, t, w) = self.attention.attention, x.shape
        qkv = joined(self.norm1(x), [a.query, a.key, a.value])
        q, k, v = qkv.view(n, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.attention.output.dense(attend(q, k, v)) * self.layer_scale1.lambda1
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)))) * self.layer_scale2.lambda1


class GemmaLayer(nn.Module):
    """One expert's part of one joint layer. With `keys_only` it gives keys and values alone: the VLM's last layer."""

    def __init__(self, config: dict, expert: dict, gain: float, keys_only: bool = False):
        super().__init__()
        a, w, m, eps = config["attention"], expert["width"], expert["mlp"], config["rms_eps"]
        self.heads, self.kv_heads, self.head_dim, self.softcap = a["heads"], a["kv_heads"], a["head_dim"], a["softcap"]
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.input_layernorm = RmsNorm(w, eps)
        self.self_attn = Group(k_proj=Linear(w, kv, False), v_proj=Linear(w, kv, False))
        if not keys_only:
            self.self_attn.q_proj, self.self_attn.o_proj = Linear(w, q, False), Linear(q, w, False, gain)
            self.post_attention_layernorm = RmsNorm(w, eps)
            self.mlp = Group(
                gate_proj=Linear(w, m, False), up_proj=Linear(w, m, False), down_proj=Linear(m, w, False, gain)
            )

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], -1, self.head_dim).transpose(1, 2)

    def keys(self, x: torch.Tensor, rope: tuple) -> tuple:
        """k (rotated), v (B, kv_heads, N, D)."""
        h, s = self.input_layernorm(x), self.self_attn
        k, v = self._split(joined(h, [s.k_proj, s.v_proj])).split([self.kv_heads] * 2, 1)
        return rotate(k, rope), v

    def queries_and_keys(self, x: torch.Tensor, rope: tuple) -> tuple:
        """q (B, heads, N, D), k (B, kv_heads, N, D), both rotated, and v."""
        h, s = self.input_layernorm(x), self.self_attn
        qkv = self._split(joined(h, [s.q_proj, s.k_proj, s.v_proj]))
        qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], 1)
        q, k = rotate(qk, rope).split([self.heads, self.kv_heads], 1)
        return q, k, v

    def finish(self, x: torch.Tensor, q, k, v, mask=None) -> torch.Tensor:
        """Attention, its residual, and the GeGLU MLP."""
        x = x + self.self_attn.o_proj(attend(q, k, v, mask, self.softcap))
        gate, up = joined(self.post_attention_layernorm(x), [self.mlp.gate_proj, self.mlp.up_proj]).chunk(2, -1)
        return x + self.mlp.down_proj(F.gelu(gate, approximate="tanh") * up)


class ActionDecoder(nn.Module):
    """Galaxea's two-layer head; the names are its checkpoint's."""

    def __init__(self, width: int, action_dim: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Sequential(Linear(width, width), nn.SiLU()), Linear(width, action_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class DepthVla(nn.Module):
    """`config` is the `config.json` of a Fathom directory, completed and checked by `settings.check_model`."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        vision, vlm, action, depth = (config[k] for k in ("vision", "vlm", "action", "depth"))
        layers, w = config["layers"], action["width"]
        gain = 1 / math.sqrt(2 * layers)  # of what is added to a residual stream (GPT-2's rule)
        self.grid = vision["image_size"] // vision["patch"]
        self.embed_tokens = nn.Embedding(config["vocab"], vlm["width"])
        nn.init.normal_(self.embed_tokens.weight, std=vlm["width"] ** -0.5)
        position = nn.Embedding(self.grid**2, vision["width"])
        nn.init.normal_(position.weight, std=0.5)
        self.vision_tower = Group(
            vision_model=Group(
                embeddings=Group(
                    patch_embedding=patch_embedding(vision["width"], vision["patch"]), position_embedding=position
                ),
                encoder=Group(layers=nn.ModuleList(SiglipLayer(vision, gain) for _ in range(vision["layers"]))),
                post_layernorm=nn.LayerNorm(vision["width"], eps=vision["eps"]),
            )
        )
        self.multi_modal_projector = Group(linear=Linear(vision["width"], vlm["width"]))
        expert = lambda e, n: nn.ModuleList(GemmaLayer(config, e, gain) for _ in range(n))
        mixtures = {
            "vlm": Group(layers=expert(vlm, layers - 1).append(GemmaLayer(config, vlm, gain, keys_only=True))),
            "action": Group(layers=expert(action, layers), norm=RmsNorm(w, config["rms_eps"])),
        }
        if depth:
            e, width = depth["encoder"], depth["expert"]["width"]
            self.depth_grid = e["image_size"] // e["patch"]
            mixtures["depth"] = Group(layers=expert(depth["expert"], layers), norm=RmsNorm(width, config["rms_eps"]))
            self.depth_encoder = Group(
                embeddings=Group(
                    cls_token=nn.Parameter(torch.randn(1, 1, e["width"]) * 0.02),
                    position_embeddings=nn.Parameter(torch.randn(1, 1 + depth["pos_grid"] ** 2, e["width"]) * 0.5),
                    patch_embeddings=Group(projection=patch_embedding(e["width"], e["patch"])),
                ),
                encoder=Group(layer=nn.ModuleList(Dinov2Layer(e, gain) for _ in range(e["layers"]))),
                layernorm=nn.LayerNorm(e["width"], eps=e["eps"]),
            )
            if depth["in_proj"]:
                self.depth_in_proj = Linear(e["width"], width)
            if depth["head"] != "none":
                self.depth_head = Linear(width, e["patch"] ** 2, gain=0.3)
        self.joint_model = Group(mixtures=nn.ModuleDict(mixtures))
        self.action_encoder = Group(
            linear_1=Linear(config["action_dim"], w), linear_2=Linear(2 * w, w), linear_3=Linear(w, w)
        )
        if config["state_token"]:
            self.proprio_encoder = Linear(config["state_dim"], w)
        two = config["action_head_layers"] == 2
        self.action_decoder = ActionDecoder(w, config["action_dim"]) if two else Linear(w, config["action_dim"], gain=0.1)

    def _rope(self, positions: torch.Tensor) -> tuple:
        a = self.config["attention"]
        return rope_table(positions, a["head_dim"], a["rope_theta"])

    def vision(self, images: torch.Tensor) -> torch.Tensor:
        """u8 (N, S, S, 3) to the VLM's tokens (N, grid², W), one view each."""
        tower = self.vision_tower.vision_model
        x = embed_patches(patches(images, self.config["vision"]["patch"]) / 127.5 - 1, tower.embeddings.patch_embedding)
        x = x + tower.embeddings.position_embedding.weight
        for layer in tower.encoder.layers:
            x = layer(x)
        return self.multi_modal_projector.linear(tower.post_layernorm(x)) * self.config["embed"]["image"]

    def depth_positions(self) -> torch.Tensor:
        """DINOv2's position embeddings for this grid (1, 1 + grid², W), interpolated as `pos_interpolation` says."""
        table, n, grid = self.depth_encoder.embeddings.position_embeddings, self.config["depth"]["pos_grid"], self.depth_grid
        if n == grid:
            return table
        square = table[:, 1:].reshape(1, n, n, -1).permute(0, 3, 1, 2)
        how = {"size": (grid, grid)} if self.config["depth"]["pos_interpolation"] == "size" else {
            "scale_factor": ((grid + 0.1) / n,) * 2  # facebookresearch/dinov2, `interpolate_offset`
        }
        square = F.interpolate(square, mode="bicubic", antialias=False, **how)
        return torch.cat((table[:, :1], square.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)), 1)

    def depth(self, images: torch.Tensor, want_map: bool = True) -> tuple:
        """The depth branch of u8 images (B, V, S, S, 3): keys and values of each layer, and the head's output
        (B, V, side, side) before its function (log depth for the head `log`), or None."""
        d = self.config["depth"]
        b, views = images.shape[:2]
        mean, std = (torch.tensor(v, device=images.device).view(3, 1) * 255 for v in (IMAGENET_MEAN, IMAGENET_STD))
        e, patch = self.depth_encoder, d["encoder"]["patch"]
        x = embed_patches((patches(images.flatten(0, 1), patch) - mean) / std, e.embeddings.patch_embeddings.projection)
        x = torch.cat((e.embeddings.cls_token.expand(b * views, -1, -1), x), 1) + self.depth_positions()
        for layer in e.encoder.layer:
            x = layer(x)
        x = e.layernorm(x)[:, 1:].reshape(b, views * self.depth_grid**2, -1)
        x = (self.depth_in_proj(x) if d["in_proj"] else x) * d["scale_input"]
        rope = self._rope(torch.arange(d["pos_base"], d["pos_base"] + x.shape[1], device=x.device))
        expert, kv = self.joint_model.mixtures["depth"], []
        for layer in expert.layers:
            last = layer is expert.layers[-1]
            if last and not want_map:
                return [*kv, layer.keys(x, rope)], None
            q, k, v = layer.queries_and_keys(x, rope)
            kv.append((k, v))
            x = layer.finish(x, q, k, v)
        if d["head"] == "none":
            return kv, None
        g = self.depth_grid
        values = self.depth_head(expert.norm(x)).float().view(b, views, g, g, patch, patch)
        return kv, values.transpose(3, 4).reshape(b, views, g * patch, g * patch)

    def vlm(self, images: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> tuple:
        """The VLM of u8 images (B, V, S, S, 3) and tokens (B, T), of which `lengths` (B) are valid: keys and values of each
        layer, the mask of padded tokens to be added (1 or B, 1, N) or None, and what enters the last layer (B, N, W)."""
        b, views = images.shape[:2]
        x = self.vision(images.flatten(0, 1)).view(b, views * self.grid**2, -1)
        x = torch.cat((x, self.embed_tokens(tokens) * self.config["embed"]["text"]), 1)
        n, mask = x.shape[1], None
        if bool((lengths < tokens.shape[1]).any()):
            valid = torch.arange(n, device=x.device) < (n - tokens.shape[1] + lengths)[:, None]
            mask = torch.zeros(valid.shape, device=x.device).masked_fill(~valid, -math.inf)[:, None]
        rope = self._rope(torch.arange(n, device=x.device) + self.config["positions"]["base"])
        *layers, last = self.joint_model.mixtures["vlm"].layers
        kv = []
        for layer in layers:
            q, k, v = layer.queries_and_keys(x, rope)
            kv.append((k, v))
            x = layer.finish(x, q, k, v, mask)
        return [*kv, last.keys(x, rope)], mask, x

    def prefix(self, images, depth_images, tokens, lengths, want_map: bool = True) -> dict:
        """All that does not depend on the noise: what `velocity` needs (`kv`, `mask`, `start`), the depth head's output, and
        the VLM's hidden states before the last layer."""
        kv, mask, hidden = self.vlm(images, tokens, lengths)
        image_tokens, vlm_tokens = hidden.shape[1] - tokens.shape[1], hidden.shape[1]
        depth_values, depth_tokens = None, 0
        if self.config["depth"]:
            depth_kv, depth_values = self.depth(depth_images, want_map)
            kv = [tuple(torch.cat(pair, 2) for pair in zip(v, d, strict=True)) for v, d in zip(kv, depth_kv, strict=True)]
            depth_tokens = depth_kv[0][0].shape[2]
        if mask is not None:
            mask = F.pad(mask, (0, depth_tokens))
        base = self.config["positions"]["base"]
        glob = self.config["positions"]["mode"] == "global"
        start = base + image_tokens + lengths if glob else torch.full_like(lengths, base)
        return {"kv": kv, "mask": mask, "start": start, "vlm_tokens": vlm_tokens, "depth": depth_values, "hidden": hidden,
                "image_tokens": image_tokens}

    def _suffix_mask(self, prefix: dict, k: int, device) -> torch.Tensor:
        """(1 or B, N, M): rows state and k chunks; columns prefix, state, k chunks."""
        s, h = int(self.config["state_token"]), self.config["horizon"]
        n, m = s + k * h, prefix["kv"][0][0].shape[2]
        own = torch.zeros(n, n, dtype=torch.bool, device=device)
        own[:, :s] = True
        own[s:, s:] = torch.block_diag(*[torch.ones(h, h)] * k).bool()
        seen = torch.ones(n, m, dtype=torch.bool, device=device)
        if s and self.config["depth"] and not self.config["depth"]["proprio_sees_depth"]:
            seen[0, prefix["vlm_tokens"] :] = False
        mask = torch.zeros(n, m + n, device=device).masked_fill(~torch.cat((seen, own), 1), -math.inf)[None]
        return mask if prefix["mask"] is None else mask + F.pad(prefix["mask"], (0, n))

    def velocity(self, prefix: dict, state: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Velocities (B, K, H, A) of noisy chunks x (B, K, H, A) at times t (B, K), for normalised states (B, state_dim)."""
        b, k, h, _ = x.shape
        encoder, config = self.action_encoder, self.config
        action = encoder.linear_1(x)
        time = time_embedding(config["time_embedding"], t, action.shape[-1])[:, :, None].expand(-1, -1, h, -1)
        pair = (action, time) if config["time_embedding"]["kind"] == "openpi" else (time, action)
        y = encoder.linear_3(F.silu(encoder.linear_2(torch.cat(pair, -1)))).reshape(b, k * h, -1)
        s = int(config["state_token"])
        if s:
            y = torch.cat((self.proprio_encoder(state)[:, None], y), 1)
        y = y.float() * config["embed"]["suffix"]
        steps = torch.cat((torch.arange(s), torch.arange(s, s + h).repeat(k))).to(x.device)
        same = bool((prefix["start"] == prefix["start"][0]).all())
        rope = self._rope(steps + (prefix["start"][:1] if same else prefix["start"])[:, None])
        mask = self._suffix_mask(prefix, k, x.device)
        expert = self.joint_model.mixtures["action"]
        for layer, (pk, pv) in zip(expert.layers, prefix["kv"], strict=True):
            q, key, v = layer.queries_and_keys(y, rope)
            y = layer.finish(y, q, torch.cat((pk, key), 2), torch.cat((pv, v), 2), mask)
        return self.action_decoder(expert.norm(y[:, s:])).float().view(b, k, h, -1)

    def depth_map(self, values: torch.Tensor) -> torch.Tensor:
        """Depth in metres of the head's output."""
        return {"log": torch.exp, "sigmoid": torch.sigmoid, "linear": lambda x: x}[self.config["depth"]["head"]](values)

    @torch.no_grad()
    def sample(self, prefix: dict, state: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Normalised actions (B, H, A) from noise (B, H, A), by Euler steps."""
        flow, x = self.config["flow"], noise[:, None]
        sign, start = (-1.0, 1.0) if flow["direction"] == "noise_at_one" else (1.0, 0.0)
        dt = sign / flow["steps"]
        for step in range(flow["steps"]):
            t = torch.full((len(x), 1), start + step * dt, device=x.device)
            x = x + dt * self.velocity(prefix, state, x, t)
        x = x[:, 0]
        return x if flow["clip"] is None else x.clamp(-flow["clip"], flow["clip"])
