"""DepthVLA in PyTorch, from the parts of transformers that its parents are made of.

Towers, norms, MLPs, projections and RoPE are transformers' own; what is written here is the mixture attention: every
layer's queries, keys and values of all experts are concatenated along the sequence, attended under the block mask, and
split before each expert's own output projection. Every flow step runs the whole sequence anew: nothing is cached, so that a
runtime which caches the prefix is checked against code that does not.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model, GemmaConfig, SiglipVisionConfig, SiglipVisionModel
from transformers.models.gemma.modeling_gemma import (
    GemmaDecoderLayer,
    GemmaRMSNorm,
    GemmaRotaryEmbedding,
    apply_rotary_pos_emb,
    repeat_kv,
)

import resize

# Which blocks (columns) the tokens of a block (rows) attend to; `state` to `depth` is a choice of the configuration.
SEES = {
    "vlm": {"vlm"},
    "depth": {"depth"},
    "state": {"vlm", "depth", "state"},
    "action": {"vlm", "depth", "state", "action"},
}


def gemma_config(config: dict, expert: dict) -> GemmaConfig:
    attention = config["attention"]
    return GemmaConfig(
        vocab_size=config["vocab"],
        hidden_size=expert["width"],
        intermediate_size=expert["mlp"],
        num_hidden_layers=config["layers"],
        num_attention_heads=attention["heads"],
        num_key_value_heads=attention["kv_heads"],
        head_dim=attention["head_dim"],
        rms_norm_eps=config["rms_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": attention["rope_theta"]},
        attn_implementation="eager",
    )


class Mixture(nn.Module):
    """The layers of one expert, and its final norm where the result is used."""

    def __init__(self, config: dict, expert: dict, final_norm: bool):
        super().__init__()
        gemma = gemma_config(config, expert)
        self.layers = nn.ModuleList(GemmaDecoderLayer(gemma, i) for i in range(config["layers"]))
        if final_norm:
            self.norm = GemmaRMSNorm(expert["width"], eps=config["rms_eps"])


class Joint(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        mixtures = {"vlm": Mixture(config, config["vlm"], False), "action": Mixture(config, config["action"], True)}
        if config["depth"]:
            mixtures["depth"] = Mixture(config, config["depth"]["expert"], True)
        self.mixtures = nn.ModuleDict(mixtures)
        self.rotary = GemmaRotaryEmbedding(gemma_config(config, config["vlm"]))
        self.attention = config["attention"]

    def forward(self, tokens: dict, positions: dict, mask: torch.Tensor):
        """Hidden states after the last layer and each layer's keys (rotated) and values, by expert."""
        a = self.attention
        names = list(tokens)
        lengths = [tokens[n].shape[0] for n in names]
        kv = {n: [] for n in names}
        for i in range(len(self.mixtures["vlm"].layers)):
            layers = {n: self.mixtures[n].layers[i] for n in names}
            q, k, v = [], [], []
            for n in names:
                h = layers[n].input_layernorm(tokens[n])
                split = lambda x: x.view(1, x.shape[0], -1, a["head_dim"]).transpose(1, 2)
                projections = layers[n].self_attn
                qn, kn, vn = (split(p(h)) for p in (projections.q_proj, projections.k_proj, projections.v_proj))
                cos, sin = self.rotary(h, positions[n][None])
                qn, kn = apply_rotary_pos_emb(qn, kn, cos, sin)
                kv[n].append(tuple(x.transpose(1, 2).reshape(h.shape[0], -1) for x in (kn, vn)))
                q.append(qn), k.append(kn), v.append(vn)
            groups = a["heads"] // a["kv_heads"]
            q, k, v = torch.cat(q, 2), repeat_kv(torch.cat(k, 2), groups), repeat_kv(torch.cat(v, 2), groups)
            logits = q @ k.transpose(2, 3) * a["head_dim"] ** -0.5
            if a["softcap"] is not None:
                logits = torch.tanh(logits / a["softcap"]) * a["softcap"]
            probabilities = logits.masked_fill(~mask, float("-inf")).softmax(-1)
            attended = (probabilities @ v).transpose(1, 2).reshape(sum(lengths), -1).split(lengths)
            for n, o in zip(names, attended, strict=True):
                x = tokens[n] + layers[n].self_attn.o_proj(o)
                tokens = {**tokens, n: x + layers[n].mlp(layers[n].post_attention_layernorm(x))}
        return tokens, kv


class DepthEncoder(Dinov2Model):
    """DINOv2 with the position embeddings of a `pos_grid`² grid, whatever the image's size."""

    def __init__(self, depth: dict):
        e = depth["encoder"]
        if e["mlp"] % e["width"]:
            raise ValueError("DINOv2's MLP is a multiple of its width")
        super().__init__(
            Dinov2Config(
                hidden_size=e["width"],
                num_hidden_layers=e["layers"],
                num_attention_heads=e["heads"],
                mlp_ratio=e["mlp"] // e["width"],
                layer_norm_eps=e["eps"],
                image_size=depth["pos_grid"] * e["patch"],
                patch_size=e["patch"],
                use_mask_token=False,
                attn_implementation="eager",
            )
        )
        if depth["pos_interpolation"] == "offset":
            self.embeddings.interpolate_pos_encoding = self.interpolate_with_offset
        self.pos_grid, self.patch = depth["pos_grid"], e["patch"]

    def interpolate_with_offset(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """facebookresearch/dinov2, models/vision_transformer.py `interpolate_pos_encoding`, interpolate_offset 0.1."""
        table, grid = self.embeddings.position_embeddings, self.pos_grid
        rows, columns = height // self.patch, width // self.patch
        if (rows, columns) == (grid, grid):
            return table
        patches = F.interpolate(
            table[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2),
            scale_factor=((rows + 0.1) / grid, (columns + 0.1) / grid),
            mode="bicubic",
            antialias=False,
        )
        assert patches.shape[-2:] == (rows, columns)
        return torch.cat((table[:, :1], patches.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)), dim=1)


def time_embedding(kind: dict, t: float, width: int) -> torch.Tensor:
    """[sin ∥ cos] of a time that is an f32 value, computed in f64."""
    t, n = float(torch.tensor(t, dtype=torch.float32)), width // 2
    i = torch.arange(n, dtype=torch.float64)
    if kind["kind"] == "openpi":
        period = kind["min_period"] * (kind["max_period"] / kind["min_period"]) ** (i / (n - 1))
        argument = 2 * math.pi * t / period
    else:
        argument = t * torch.exp(-i * math.log(kind["max_period"]) / (n - 1))
    return torch.cat((argument.sin(), argument.cos())).float()


class ActionEncoder(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        width = config["action"]["width"]
        self.linear_1 = nn.Linear(config["action_dim"], width)
        self.linear_2 = nn.Linear(2 * width, width)
        self.linear_3 = nn.Linear(width, width)
        self.kind = config["time_embedding"]

    def forward(self, x: torch.Tensor, t: float) -> torch.Tensor:
        action = self.linear_1(x)
        time = time_embedding(self.kind, t, action.shape[-1]).expand_as(action)
        pair = (action, time) if self.kind["kind"] == "openpi" else (time, action)
        return self.linear_3(F.silu(self.linear_2(torch.cat(pair, dim=-1))))


class ActionDecoder(nn.Module):
    """Galaxea's two-layer head; the names are its checkpoint's."""

    def __init__(self, width: int, action_dim: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Sequential(nn.Linear(width, width), nn.SiLU()), nn.Linear(width, action_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class Projector(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)


class DepthVla(nn.Module):
    """`config` is the `config.json` of a Fathom model directory. Module names are the checkpoint's tensor names."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        vision, vlm, action, depth = (config[k] for k in ("vision", "vlm", "action", "depth"))
        self.embed_tokens = nn.Embedding(config["vocab"], vlm["width"])
        self.vision_tower = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=vision["width"],
                intermediate_size=vision["mlp"],
                num_hidden_layers=vision["layers"],
                num_attention_heads=vision["heads"],
                image_size=vision["image_size"],
                patch_size=vision["patch"],
                layer_norm_eps=vision["eps"],
                vision_use_head=False,
                attn_implementation="eager",
            )
        )
        self.multi_modal_projector = Projector(vision["width"], vlm["width"])
        self.joint_model = Joint(config)
        self.action_encoder = ActionEncoder(config)
        self.proprio_encoder = nn.Linear(config["state_dim"], action["width"]) if config["state_token"] else None
        if config["action_head_layers"] == 1:
            self.action_decoder = nn.Linear(action["width"], config["action_dim"])
        else:
            self.action_decoder = ActionDecoder(action["width"], config["action_dim"])
        if depth:
            encoder, expert = depth["encoder"], depth["expert"]
            self.depth_encoder = DepthEncoder(depth)
            self.depth_in_proj = nn.Linear(encoder["width"], expert["width"]) if depth["in_proj"] else nn.Identity()
            if depth["head"] != "none":
                self.depth_head = nn.Linear(expert["width"], encoder["patch"] ** 2)

    def embed_prefix(self, images: dict, tokens: torch.Tensor, taps: dict) -> dict:
        """What enters the VLM and the depth expert."""
        config = self.config
        vlm, depths = [], []
        for view in config["views"]:
            pixels = resize.for_vision(images[view], config["vision"]["image_size"], config["resize"])
            taps[f"vision.{view}"] = self.vision_tower(pixels).last_hidden_state[0]
            taps[f"projector.{view}"] = self.multi_modal_projector.linear(taps[f"vision.{view}"])
            vlm.append(taps[f"projector.{view}"] * config["embed"]["image"])
        vlm.append(self.embed_tokens(tokens) * config["embed"]["text"])
        embedded = {"vlm": torch.cat(vlm)}
        if depth := config["depth"]:
            for view in depth["views"]:
                pixels = resize.for_depth(images[view], depth["encoder"]["image_size"], config["resize"])
                taps[f"depth_encoder.{view}"] = self.depth_encoder(pixels).last_hidden_state[0, 1:]
                depths.append(self.depth_in_proj(taps[f"depth_encoder.{view}"]) * depth["scale_input"])
            embedded["depth"] = torch.cat(depths)
        return embedded

    def blocks(self, embedded: dict) -> dict:
        """Number of tokens of each block of the mask, in the order of the sequence."""
        lengths = {name: x.shape[0] for name, x in embedded.items()}
        return {**lengths, "state": int(self.config["state_token"]), "action": self.config["horizon"]}

    def mask(self, blocks: dict) -> torch.Tensor:
        owner = [name for name, n in blocks.items() for _ in range(n)]
        sees = dict(SEES)
        if self.config["depth"] and not self.config["depth"]["proprio_sees_depth"]:
            sees["state"] = sees["state"] - {"depth"}
        return torch.tensor([[key in sees[query] for key in owner] for query in owner])

    def positions(self, blocks: dict) -> dict:
        numbering = self.config["positions"]
        count = lambda first, n: torch.arange(first, first + n)
        suffix = numbering["base"] + (blocks["vlm"] if numbering["mode"] == "global" else 0)
        positions = {"vlm": count(numbering["base"], blocks["vlm"])}
        if self.config["depth"]:
            positions["depth"] = count(self.config["depth"]["pos_base"], blocks["depth"])
        return {**positions, "action": count(suffix, blocks["state"] + blocks["action"])}

    def depth_maps(self, hidden: torch.Tensor) -> dict:
        depth = self.config["depth"]
        patch, grid = depth["encoder"]["patch"], depth["encoder"]["image_size"] // depth["encoder"]["patch"]
        values = self.depth_head(self.joint_model.mixtures["depth"].norm(hidden))
        values = {"log": torch.exp, "sigmoid": torch.sigmoid, "linear": lambda x: x}[depth["head"]](values)
        maps = values.view(len(depth["views"]), grid, grid, patch, patch).permute(0, 1, 3, 2, 4)
        return dict(zip(depth["views"], maps.reshape(-1, grid * patch, grid * patch), strict=True))

    @torch.no_grad()
    def infer(self, observation: dict) -> dict:
        """Every stage of one inference, by the names of `golden.safetensors`."""
        config, flow, taps = self.config, self.config["flow"], {}
        images = {view: observation[f"image.{view}"].numpy() for view in config["views"]}
        embedded = self.embed_prefix(images, observation["tokens"].long(), taps)
        blocks = self.blocks(embedded)
        mask, positions = self.mask(blocks), self.positions(blocks)
        suffix = []
        if config["state_token"]:
            state = F.pad(observation["state"], (0, config["state_dim"] - observation["state"].shape[0]))
            suffix.append(self.proprio_encoder(state)[None])
        x = observation["noise"]
        sign, start = (-1.0, 1.0) if flow["direction"] == "noise_at_one" else (1.0, 0.0)
        dt = sign / flow["steps"]
        for step in range(flow["steps"]):
            tokens = torch.cat((*suffix, self.action_encoder(x, start + step * dt))) * config["embed"]["suffix"]
            hidden, kv = self.joint_model({**embedded, "action": tokens}, positions, mask)
            v = self.action_decoder(self.joint_model.mixtures["action"].norm(hidden["action"])[-config["horizon"] :])
            taps[f"velocity.{step}"] = v
            x = x + dt * v
            cached = {name: kv[name] for name in embedded}
            if config["state_token"]:
                cached["state"] = [(k[:1], v[:1]) for k, v in kv["action"]]
            for name, layers in cached.items():
                for i, pair in enumerate(layers):
                    for part, tensor in zip("kv", pair, strict=True):
                        first = taps.setdefault(f"{name}.layers.{i}.{part}", tensor)
                        # The block mask promises it: nothing that is cached depends on the noisy actions.
                        torch.testing.assert_close(tensor, first, rtol=1e-5, atol=1e-5)
        if config["depth"] and config["depth"]["head"] != "none":
            taps.update({f"depth.{view}": m for view, m in self.depth_maps(hidden["depth"]).items()})
        if flow["clip"] is not None:
            x = x.clamp(-flow["clip"], flow["clip"])
        taps["actions.normalized"] = taps["actions"] = x
        return taps
