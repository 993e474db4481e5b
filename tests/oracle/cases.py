"""The cases: one entry each. `config` of a `depthvla` case is the `config.json` that Fathom reads.

The goldens of `CASES` are committed. Those of `LIVE` are made whenever they are compared with (tests/oracle/check): another
is one line there.
"""

import copy
from math import sqrt

CASES = [
    {
        # openpi's conventions throughout; two cameras of different shapes, both with depth.
        "name": "depthvla_openpi",
        "kind": "depthvla",
        "seed": 1,
        "qk_gain": 1.5,
        "images": {"base": (44, 60), "wrist": (64, 48)},
        "state": 6,
        "prompt": 5,
        "config": {
            "model_type": "depthvla",
            "views": ["base", "wrist"],
            "resize": "pillow_bilinear",
            "vocab": 64,
            "max_tokens": 12,
            "state_dim": 8,
            "action_dim": 8,
            "horizon": 8,
            "layers": 3,
            "attention": {"heads": 4, "kv_heads": 1, "head_dim": 16, "rope_theta": 10000.0, "softcap": None},
            "rms_eps": 1e-6,
            "vision": {"image_size": 56, "patch": 14, "width": 48, "layers": 2, "heads": 4, "mlp": 96, "eps": 1e-6},
            "vlm": {"width": 64, "mlp": 128},
            "action": {"width": 32, "mlp": 64},
            "depth": {
                "views": ["base", "wrist"],
                "encoder": {
                    "image_size": 56, "patch": 14, "width": 48, "layers": 2, "heads": 4, "mlp": 192, "eps": 1e-6
                },
                "pos_grid": 5,
                "pos_interpolation": "size",
                "expert": {"width": 48, "mlp": 96},
                "in_proj": False,
                "scale_input": 1.0,
                "pos_base": 0,
                "proprio_sees_depth": True,
                "head": "log",
            },
            "state_token": True,
            "embed": {"text": sqrt(64), "image": 1.0, "suffix": 1.0},
            "time_embedding": {"kind": "openpi", "min_period": 0.004, "max_period": 4.0},
            "flow": {"steps": 4, "direction": "noise_at_one", "clip": None},
            "positions": {"mode": "global", "base": 0},
            "action_head_layers": 1,
        },
    },
    {
        # open-pi-zero's and Galaxea's conventions, grouped-query attention, sizes that no tile divides.
        "name": "depthvla_opz",
        "kind": "depthvla",
        "seed": 2,
        "qk_gain": 1.8,
        "images": {"front": (37, 50)},
        "state": 7,
        "prompt": 1,
        "config": {
            "model_type": "depthvla",
            "views": ["front"],
            "resize": "torch_bilinear",
            "vocab": 32,
            "max_tokens": 6,
            "state_dim": 7,
            "action_dim": 7,
            "horizon": 5,
            "layers": 3,
            "attention": {"heads": 6, "kv_heads": 2, "head_dim": 12, "rope_theta": 10000.0, "softcap": 5.0},
            "rms_eps": 1e-6,
            "vision": {"image_size": 40, "patch": 8, "width": 40, "layers": 2, "heads": 4, "mlp": 72, "eps": 1e-6},
            "vlm": {"width": 56, "mlp": 104},
            "action": {"width": 36, "mlp": 68},
            "depth": {
                "views": ["front"],
                "encoder": {
                    "image_size": 42, "patch": 14, "width": 36, "layers": 2, "heads": 3, "mlp": 144, "eps": 1e-6
                },
                "pos_grid": 4,
                "pos_interpolation": "offset",
                "expert": {"width": 40, "mlp": 76},
                "in_proj": True,
                "scale_input": sqrt(40),
                "pos_base": 1,
                "proprio_sees_depth": False,
                "head": "sigmoid",
            },
            "state_token": True,
            "embed": {"text": sqrt(56), "image": 1.0, "suffix": sqrt(36)},
            "time_embedding": {"kind": "open_pi_zero", "max_period": 100.0},
            "flow": {"steps": 5, "direction": "noise_at_zero", "clip": 1.0},
            "positions": {"mode": "per_mixture", "base": 1},
            "action_head_layers": 2,
        },
    },
    {
        # lerobot's own PI0, shrunk; 8 heads are hard-coded there.
        "name": "pi0_lerobot",
        "kind": "lerobot_pi0",
        "seed": 3,
        "qk_gain": 1.5,
        "images": {"top": (48, 64), "wrist": (70, 45)},
        "state": 6,
        "action": 7,
        "prompt": 6,
        "vocab": 64,
        "vlm": {"width": 64, "mlp": 128},
        "expert": {"width": 32, "mlp": 64},
        "layers": 3,
        "head_dim": 16,
        "vision": {"image_size": 56, "width": 48, "layers": 2, "heads": 4, "mlp": 96},
        "policy": {
            "chunk_size": 8,
            "max_state_dim": 8,
            "max_action_dim": 8,
            "num_inference_steps": 10,
            "empty_cameras": 0,
            "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
            "use_relative_actions": False,
            "action_feature_names": None,
            "tokenizer_max_length": 12,
        },
    },
    {
        # lerobot's own PI0.5: adaRMS, the state in the prompt, quantiles; the longest prompt, another number of steps.
        "name": "pi05_lerobot",
        "kind": "lerobot_pi05",
        "seed": 5,
        "qk_gain": 1.5,
        "images": {"top": (48, 64)},
        "state": 6,
        "action": 7,
        "task": " push_the\nblock ",
        "prompt": 12,
        "vocab": 64,
        "vlm": {"width": 64, "mlp": 128},
        "expert": {"width": 32, "mlp": 64},
        "layers": 3,
        "head_dim": 16,
        "vision": {"image_size": 56, "width": 48, "layers": 2, "heads": 4, "mlp": 96},
        "policy": {
            "chunk_size": 10,
            "max_state_dim": 8,
            "max_action_dim": 8,
            "num_inference_steps": 5,
            "empty_cameras": 0,
            "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILES"},
            "use_relative_actions": False,
            "action_feature_names": None,
            "tokenizer_max_length": 12,
        },
    },
    {
        # Relative depth of an oblong photo, shrunk: 6 × 4 patches on a table of positions of 5 × 5.
        "name": "depth_anything_relative",
        "kind": "depth_anything",
        "seed": 5,
        "qk_gain": 1.5,
        "head_bias": -0.75,
        "image": (61, 90),
        "backbone": {
            "hidden_size": 36,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": 70,
            "out_indices": [1, 2, 3, 4],
        },
        "config": {
            "neck_hidden_sizes": [12, 20, 24, 40],
            "fusion_hidden_size": 18,
            "head_hidden_size": 8,
            "depth_estimation_type": "relative",
        },
        "processor": {
            "size": {"height": 56, "width": 56},
            "keep_aspect_ratio": True,
            "ensure_multiple_of": 14,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    },
    {
        # Metric depth of a square photo, enlarged: 5 × 5 patches as the table has, other taps, out of six layers.
        "name": "depth_anything_metric",
        "kind": "depth_anything",
        "seed": 6,
        "qk_gain": 1.5,
        "head_bias": 0.25,
        "image": (33, 33),
        "backbone": {
            "hidden_size": 24,
            "num_hidden_layers": 6,
            "num_attention_heads": 2,
            "image_size": 70,
            "out_indices": [2, 3, 5, 6],
        },
        "config": {
            "neck_hidden_sizes": [8, 9, 12, 17],
            "fusion_hidden_size": 10,
            "head_hidden_size": 5,
            "depth_estimation_type": "metric",
            "max_depth": 20,
        },
        "processor": {
            "size": {"height": 70, "width": 70},
            "keep_aspect_ratio": True,
            "ensure_multiple_of": 14,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    },
    {
        # Each delay with the steps of the chunk before that are over.
        "name": "chunks",
        "kind": "chunks",
        "of": ["pi0_lerobot", "pi05_lerobot"],
        "guided": {"delays": [(1, 1), (3, 2)], "horizon": 6, "most": 10.0},
        "ensemble": {"seed": 8, "chunks": 7, "horizon": 6, "joints": 3, "decay": 0.05},
    },
    {
        # A PaliGemma with two heads for keys and values, and a DINOv2 of another patch, positions and width.
        "name": "composed",
        "kind": "composed",
        "seed": 8,
        "qk_gain": 1.5,
        "image": (61, 47),
        "prompt": 5,
        "text": {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 65,
        },
        "vision": {
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        "encoder": {
            "hidden_size": 36,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "mlp_ratio": 2,
            "image_size": 60,
            "patch_size": 12,
        },
    },
    {
        "name": "tokenizer",
        "kind": "tokenizer",
        "size": 420,
        "text": [
            "put both moka pots on the stove",
            "reach for the red block and the   blue block",
            "pick  up the cup, then close drawer 3",
            "Stelle die Tasse auf den Küchentisch!",
            "naïve café — “quoted”",
        ],
        "prompts": [
            "put both moka pots on the stove",
            "a",
            "",
            "  pick  up   the cup_holder\n",
            "open drawer 12, then close it.",
            "Küchentisch — “café”",
            "🤖 grasp the 🍎",
            "把杯子放在桌子上",
            "stackthebluecubeonthegreenone",
            "x\ty",
            "first\nsecond\n\nthird",
            "put it at <loc0000><loc0000> now",
            "say <eos> and <bos>",
        ],
    },
    {
        # (height, width, size) of each image.
        "name": "resize",
        "kind": "resize",
        "seed": 4,
        "images": [
            (30, 40, 28),  # shrink by 40/28
            (51, 37, 24),  # shrink, upright, odd padding
            (16, 12, 32),  # enlarge
            (9, 61, 32),  # extreme aspect: 4 rows
            (61, 4, 20),  # extreme aspect: 1 column
            (32, 32, 32),  # equal: passes unchanged
            (1, 24, 32),  # one row, enlarged
            (24, 1, 32),  # one column, enlarged
            (1, 1, 16),  # one pixel
            (36, 29, 28),  # 36 / (36 / 28) is below 28 in double precision: 27 rows
            (29, 29, 56),  # the same when enlarging: 55 by 55
        ],
    },
]


def variant(base: str, name: str, seed: int, **changes) -> dict:
    """The case `base` of `CASES` with other values at some paths, `__` for each dot: `config__horizon=50`."""
    case = copy.deepcopy(next(case for case in CASES if case["name"] == base))
    case |= {"name": name, "seed": seed}
    for path, value in changes.items():
        *parents, field = path.split("__")
        section = case
        for parent in parents:
            section = section[parent]
        if field not in section:
            raise KeyError(f"{name}: {base} has no {path}")
        section[field] = value
    return case


THREE = {"base": (61, 47), "left": (64, 48), "right": (33, 90)}
LIVE = [
    # DepthVLA: heads, views, horizons, prompts and sizes that are awkward.
    variant("depthvla_openpi", "depthvla_odd_heads", 101, prompt=1, config__horizon=1, config__attention__heads=5,
            config__vision__heads=3, config__depth__encoder__heads=3),
    variant("depthvla_openpi", "depthvla_three_views", 102, prompt=12, images=THREE, config__views=list(THREE),
            config__depth__views=["right", "base"], config__horizon=50),
    variant("depthvla_openpi", "depthvla_heads_72_wide", 103, config__horizon=10, config__vision__width=144,
            config__vision__heads=2, config__depth__encoder__width=144, config__depth__encoder__heads=2,
            config__depth__encoder__mlp=288, config__depth__in_proj=True),
    variant("depthvla_openpi", "depthvla_heads_256_wide", 104, config__attention__head_dim=256, config__layers=2,
            config__attention__heads=3, config__attention__kv_heads=3),
    variant("depthvla_openpi", "depthvla_sides_no_patch_divides", 105, config__vision__image_size=61,
            config__depth__encoder__image_size=75, config__depth__head="linear"),
    variant("depthvla_openpi", "depthvla_no_depth", 106, config__depth=None, config__horizon=10),
    variant("depthvla_openpi", "depthvla_no_state", 107, config__state_token=False, config__depth__head="none"),
    variant("depthvla_opz", "depthvla_opz_odd_heads", 108, prompt=6, config__attention__heads=9,
            config__attention__kv_heads=3, config__vision__heads=5, config__horizon=1),
    variant("depthvla_opz", "depthvla_opz_patch_7", 109, images={"front": (40, 40)}, config__vision__patch=7,
            config__depth__encoder__patch=7, config__resize="pillow_bilinear", config__action_head_layers=1),
    # lerobot's own PI0 and PI0.5.
    variant("pi0_lerobot", "pi0_one_view", 111, images={"top": (37, 91)}, prompt=1, policy__chunk_size=1,
            vision__heads=3),
    variant("pi0_lerobot", "pi0_three_views", 112, images=THREE, prompt=12, policy__chunk_size=50),
    variant("pi0_lerobot", "pi0_heads_72_wide", 113, vision__width=144, vision__heads=2, policy__chunk_size=10),
    variant("pi0_lerobot", "pi0_sides_no_patch_divides", 114, vision__image_size=61),
    variant("pi0_lerobot", "pi0_masked_cameras", 115, policy__empty_cameras=2),
    variant("pi0_lerobot", "pi0_min_max", 116, policy__normalization_mapping__STATE="MIN_MAX",
            policy__normalization_mapping__ACTION="MIN_MAX"),
    variant("pi0_lerobot", "pi0_relative_actions", 117, state=7, policy__use_relative_actions=True,
            policy__action_feature_names=["x", "y", "z", "roll", "pitch", "yaw", "Gripper.pos"]),
    variant("pi05_lerobot", "pi05_one_token", 121, prompt=1, policy__chunk_size=1, vision__heads=3),
    variant("pi05_lerobot", "pi05_three_views", 122, images=THREE, policy__chunk_size=50,
            policy__num_inference_steps=10),
    variant("pi05_lerobot", "pi05_masked_camera", 123, prompt=5, policy__empty_cameras=1, vision__width=144,
            vision__heads=2),
    variant("pi05_lerobot", "pi05_mean_std", 124, policy__normalization_mapping__STATE="MEAN_STD",
            policy__normalization_mapping__ACTION="MEAN_STD"),
    # PaliGemma and DINOv2 as transformers writes them.
    variant("composed", "composed_heads_72_wide", 141, image=(40, 90), prompt=1, vision__hidden_size=144,
            vision__num_attention_heads=2, vision__image_size=61, encoder__hidden_size=144,
            encoder__num_attention_heads=2, text__num_key_value_heads=1),
    # Depth Anything; without `head_bias` a quarter of the map is 0.
    variant("depth_anything_relative", "depth_anything_upright", 131, image=(117, 43), head_bias=None,
            backbone__num_attention_heads=9),
    variant("depth_anything_metric", "depth_anything_heads_72_wide", 132, image=(41, 70), head_bias=None,
            backbone__hidden_size=144),
    variant("depth_anything_relative", "depth_anything_aspect_lost", 133, image=(29, 100), head_bias=None,
            processor__keep_aspect_ratio=False, config__fusion_hidden_size=7, config__head_hidden_size=3),
]
