"""Configuration of a training: a TOML file, and the `config.json` of a DepthVLA.

Every table is completed with the defaults below and checked: an unknown key, or a value of another type, is an error that
names the key, what was expected and what was found.
"""

import copy
import json
import tomllib
from pathlib import Path


class SettingsError(Exception):
    """A key, what it should hold, and what it holds."""


def refuse(key: str, expected: str, found) -> SettingsError:
    return SettingsError(f"{key}: expected {expected}, found {found!r}")


# The demo's model: `config.json` of a Fathom directory. Depth branch: width 128, MLP 256.
MODEL = {
    "views": ["base", "wrist"],
    "resize": "pillow_bilinear",
    "vocab": 320,
    "max_tokens": 48,
    "state_dim": 6,
    "action_dim": 6,
    "horizon": 16,
    "layers": 4,
    "attention": {"heads": 2, "kv_heads": 1, "head_dim": 64, "rope_theta": 10000.0, "softcap": None},
    "rms_eps": 1e-6,
    "vision": {"image_size": 112, "patch": 14, "width": 128, "layers": 3, "heads": 2, "mlp": 256, "eps": 1e-6},
    "vlm": {"width": 128, "mlp": 256},
    "action": {"width": 64, "mlp": 256},
    "depth": {
        "views": ["base"],
        "encoder": {"image_size": 112, "patch": 14, "width": 128, "layers": 3, "heads": 2, "mlp": 256, "eps": 1e-6},
        "pos_grid": 8,
        "pos_interpolation": "size",
        "expert": {"width": 128, "mlp": 256},
        "in_proj": False,
        "scale_input": 1.0,
        "pos_base": 0,
        "proprio_sees_depth": True,
        "head": "log",
    },
    "state_token": True,
    "embed": {"text": 128**0.5, "image": 1.0, "suffix": 1.0},
    "time_embedding": {"kind": "openpi", "min_period": 4e-3, "max_period": 4.0},
    "flow": {"steps": 10, "direction": "noise_at_one", "clip": None, "sig_min": None},
    "positions": {"mode": "global", "base": 0},
    "action_head_layers": 1,
    "normalization": {"mode": "zscore", "eps": 1e-6},
    "relative_actions": [True] * 6,
    "time_conditioning": "token",
    "prompt": "task",
    "model_type": "depthvla",
}
# Fields of `config.json` that the runtime completes when they are absent (models/src/nets/config.rs, `serde(default)`).
RUNTIME_DEFAULTS = {
    "normalization": {"mode": "zscore", "eps": 1e-6},
    "relative_actions": [],
    "time_conditioning": "token",
    "prompt": "task",
    "model_type": "depthvla",
}
# What this trainer implements of the fields that name a way.
CHOICES = {
    "resize": ("pillow_bilinear", "torch_bilinear", "torchvision_stretch", "cv_lanczos4_stretch", "torch_bilinear_pad_top_left"),
    "time_conditioning": ("token",),
    "prompt": ("task", "lerobot", "open_pi_zero"),
    "model_type": ("depthvla",),
    "flow.direction": ("noise_at_one", "noise_at_zero"),
    "positions.mode": ("global", "per_mixture"),
    "time_embedding.kind": ("openpi", "open_pi_zero"),
    "normalization.mode": ("zscore", "quantile", "minmax"),
    "depth.head": ("log", "linear", "sigmoid", "none"),
    "depth.pos_interpolation": ("size", "offset"),
    "action_head_layers": (1, 2),
}

DATA = {
    "path": "",
    "validation_episodes": 0.03,
    "views": {"base": "observation.images.base", "wrist": "observation.images.wrist"},
    "depth": {"base": "observation.depth.base"},
    "state": "observation.state",
    "action": "action",
    "plan": "",
    "pixel": "",
    "chunk_hz": 0.0,
    "max_depth_m": 3.0,
    "no_depth": "ignore",
    "statistics": "data",
    "cache_gib": 6.0,
    "decode_threads": 1,
    "std_floor": 0.01,
    "max_frames": 0,
}
OPTIMISER = {
    "betas": [0.9, 0.95],
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip": 1.0,
    "ema": 0.998,
    "warm_up": 100,
}
STAGE = {
    "name": None,
    "steps": None,
    "batch": None,
    "lr": None,
    "losses": None,
    "train": ["*"],
    "freeze": [],
    "groups": [],
    "lora": {},
    "noises": 4,
    "warm_up": 0,
    "jitter": 0.0,
}
GROUP = {"match": None, "lr_scale": 1.0, "weight_decay": -1.0}
LORA = {"match": None, "rank": 8, "alpha": 16.0}
TOP = {
    "seed": 0,
    "threads": 1,
    "processes": 1,
    "device": "cpu",
    "precision": "f32",
    "init": "",
    "tokenizer": "",
    "export": "bf16",
    "checkpoint_every": 200,
    "log_every": 20,
    "validate_every": 500,
    "validation_frames": 256,
    "validation_seed": 1,
    "data": DATA,
    "model": {},
    "optimiser": OPTIMISER,
    "stage": None,
}
LOSSES = ("flow", "depth_l1", "depth_silog", "grounding")


def complete(given: dict, defaults: dict, where: str, free: tuple = ()) -> dict:
    """`given` over `defaults`. Keys named in `free` (dotted) are tables of any keys."""
    out = copy.deepcopy(defaults)
    for key, value in given.items():
        name = f"{where}.{key}".lstrip(".")
        if key not in defaults:
            raise refuse(name, f"one of the keys {', '.join(defaults)}", key)
        default = defaults[key]
        if isinstance(default, dict) and isinstance(value, dict) and name not in free:
            value = complete(value, default, name, free)
        elif isinstance(default, float) and type(value) is int:
            value = float(value)
        elif default is not None and type(value) is not type(default):
            raise refuse(name, f"a {type(default).__name__}", value)
        out[key] = value
    missing = [k for k, v in out.items() if v is None and defaults[k] is None and k not in given]
    if missing and where != "" and not where.startswith("model"):
        raise refuse(where, f"the keys {', '.join(missing)}", list(given))
    return out


def check_model(config: dict, source: str) -> dict:
    """A complete DepthVLA configuration that this trainer implements, or an error."""
    config = {**copy.deepcopy(RUNTIME_DEFAULTS), **config}
    for key in MODEL:
        if key not in config:
            raise refuse(f"{source}: {key}", "a DepthVLA's config.json, which has it", sorted(config))
    for key in config:
        if key not in MODEL:
            raise refuse(f"{source}: {key}", f"one of the keys {', '.join(MODEL)}", key)
    for key, choices in CHOICES.items():
        value = config
        for part in key.split("."):
            value = value[part] if value is not None else None
        if value not in choices and not (key.startswith("depth.") and config["depth"] is None):
            raise refuse(f"{source}: {key}", f"one of {', '.join(map(str, choices))}, which this trainer implements", value)
    a = config["attention"]
    for name, part in (("vision", config["vision"]), ("depth.encoder", (config["depth"] or {}).get("encoder"))):
        if part and part["width"] % part["heads"]:
            raise refuse(f"{source}: {name}.heads", f"a divisor of {part['width']}", part["heads"])
    if a["heads"] % a["kv_heads"] or a["head_dim"] % 2:
        raise refuse(f"{source}: attention", "kv_heads that divide heads, and an even head_dim", a)
    if len(config["relative_actions"]) > min(config["action_dim"], config["state_dim"]):
        raise refuse(f"{source}: relative_actions", "no more elements than state and action", config["relative_actions"])
    if (depth := config["depth"]) is not None:
        if not depth["in_proj"] and depth["encoder"]["width"] != depth["expert"]["width"]:
            raise refuse(f"{source}: depth.in_proj", "true where encoder and expert differ in width", False)
        if unknown := [v for v in depth["views"] if v not in config["views"]]:
            raise refuse(f"{source}: depth.views", f"some of {config['views']}", unknown)
    return config


def model_config(settings: dict) -> dict:
    """The configuration of the model to train: that of `init`, or [model] over the demo's."""
    if settings["init"]:
        if settings["model"]:
            raise refuse("model", "nothing beside init, which brings its own configuration", sorted(settings["model"]))
        path = Path(settings["init"]) / "config.json"
        return check_model(json.loads(path.read_text()), str(path))
    given = dict(settings["model"])
    if given.get("depth") is False:  # a pi0: no depth branch
        return check_model({**complete({k: v for k, v in given.items() if k != "depth"}, MODEL, "model"), "depth": None}, "model")
    return check_model(complete(given, MODEL, "model"), "model")


def load(path: Path, overrides: list[str] = ()) -> dict:
    """Reads a configuration. `overrides` are `key=value`, dotted, with a TOML value: `data.path="d"`, `stage.0.steps=10`.
    Paths are relative to the file's folder; those of overrides to the current one."""
    raw = tomllib.loads(path.read_text())
    for place, key in ((raw, "init"), (raw, "tokenizer"), (raw.get("data", {}), "path")):
        if place.get(key):
            place[key] = str((path.parent / place[key]).resolve())
    for override in overrides:
        key, _, text = override.partition("=")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        node, *parts = raw, *key.split(".")
        for part in parts[:-1]:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[parts[-1]] = value
    settings = complete(raw, TOP, "", free=("data.views", "data.depth", "model"))
    if not settings["data"]["path"]:
        raise refuse("data.path", "the folder of a LeRobot v3.0 data set (--data)", "")
    if not settings["stage"]:
        raise refuse("stage", "at least one [[stage]]", settings["stage"])
    settings["stage"] = [
        complete(s, STAGE, f"stage.{i}", free=(f"stage.{i}.losses", f"stage.{i}.lora")) for i, s in enumerate(settings["stage"])
    ]
    for i, stage in enumerate(settings["stage"]):
        where = f"stage.{i} ({stage['name']})"
        if unknown := set(stage["losses"]) - set(LOSSES):
            raise refuse(f"{where}.losses", f"some of {', '.join(LOSSES)}", sorted(unknown))
        if not any(stage["losses"].values()):
            raise refuse(f"{where}.losses", "at least one weight above 0", stage["losses"])
        stage["losses"] = {k: float(v) for k, v in stage["losses"].items() if v}
        stage["groups"] = [complete(g, GROUP, f"{where}.groups.{n}") for n, g in enumerate(stage["groups"])]
        if stage["lora"]:
            stage["lora"] = complete(stage["lora"], LORA, f"{where}.lora")
        if settings["processes"] > 1 and stage["batch"] % settings["processes"]:
            raise refuse(f"{where}.batch", f"a multiple of {settings['processes']} processes", stage["batch"])
    for key, choices in (("no_depth", ("ignore", "far")), ("statistics", ("data", "init"))):
        if settings["data"][key] not in choices:
            raise refuse(f"data.{key}", " or ".join(choices), settings["data"][key])
    for key, choices in (("precision", ("f32", "bf16")), ("export", ("f32", "bf16"))):
        if settings[key] not in choices:
            raise refuse(key, " or ".join(choices), settings[key])
    if settings["processes"] > 1 and settings["device"] != "cpu":
        raise refuse("processes", "1 on a device other than the cpu", settings["processes"])
    return settings
