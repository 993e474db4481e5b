"""Tests of the trainer: `python test.py [--data SET] [NAME…]`. SET is what write_set.py wrote.

Without --data the tests that need a data set are skipped. $FATHOM, if given, is the command of the runtime to compare with.
"""

import argparse
import copy
import json
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

TRAIN = Path(__file__).resolve().parents[1]
GOLDEN = TRAIN.parents[1] / "tests/golden"
sys.path.insert(0, str(TRAIN))

import check
import data
import export
import losses
import settings
import train
from model import DepthVla
from prompts import Tokenizer

DATA: Path | None = None
SMALL = {
    "layers": 2,
    "vision": {"width": 32, "heads": 2, "mlp": 64, "layers": 1, "image_size": 56},
    "vlm": {"width": 32, "mlp": 64},
    "action": {"width": 32, "mlp": 64},
    "attention": {"heads": 2, "head_dim": 16},
    "depth": {
        "encoder": {"width": 32, "heads": 2, "mlp": 64, "layers": 1, "image_size": 56},
        "expert": {"width": 32, "mlp": 64},
        "pos_grid": 4,
    },
}


def small(**changes) -> dict:
    given = copy.deepcopy(SMALL)
    for key, value in changes.items():
        node = given
        *path, last = key.split("__")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return settings.check_model(settings.complete(given, settings.MODEL, "model"), "test")


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> None:
    difference = float((found.detach() - expected.detach()).abs().max())
    assert difference <= tolerance, f"{what}: expected a difference of at most {tolerance}, found {difference}"


def inputs(config: dict, b: int = 3, t: int = 5) -> tuple:
    g = torch.Generator().manual_seed(3)
    side = config["vision"]["image_size"]
    images = torch.randint(0, 256, (b, len(config["views"]), side, side, 3), generator=g, dtype=torch.uint8)
    depth = images[:, [config["views"].index(v) for v in config["depth"]["views"]]] if config["depth"] else images[:, :0]
    tokens = torch.randint(0, config["vocab"], (b, t), generator=g)
    return images, depth, tokens, torch.full((b,), t), torch.randn(b, config["state_dim"], generator=g)


def resized(image: torch.Tensor, side: int, mode: str) -> torch.Tensor:
    """u8 (H, W, 3) to f32 (side, side, 3) of 0 to 255."""
    if mode == "pillow_bilinear":
        return torch.from_numpy(data.square(data.Image.fromarray(image.numpy()), side, data.Image.BILINEAR).copy()).float()
    width, height, left, top = data.fit(image.shape[1], image.shape[0], side)
    x = F.interpolate(image.float().permute(2, 0, 1)[None], (height, width), mode="bilinear", align_corners=False)
    return F.pad(x, (left, side - width - left, top, side - height - top))[0].permute(1, 2, 0)


def test_oracle_goldens() -> None:
    """The oracle's committed results, with openpi's and with open-pi-zero's conventions."""
    for name in ("depthvla_openpi", "depthvla_opz"):
        directory = GOLDEN / name
        config = settings.check_model(json.loads((directory / "config.json").read_text()), name)
        model = DepthVla(config)
        export.load_weights(model, directory)
        given, golden = load_file(directory / "observation.safetensors"), load_file(directory / "golden.safetensors")
        pick = lambda size, views: torch.stack([resized(given[f"image.{v}"], size, config["resize"]) for v in views])[None]
        images = pick(config["vision"]["image_size"], config["views"])
        depth_images = pick(config["depth"]["encoder"]["image_size"], config["depth"]["views"])
        tokens = given["tokens"].long()[None]
        state = F.pad(given["state"], (0, config["state_dim"] - len(given["state"])))[None]
        with torch.no_grad():
            prefix = model.prefix(images, depth_images, tokens, torch.tensor([tokens.shape[1]]))
            actions = model.sample(prefix, state, given["noise"][None])[0]
            maps = model.depth_map(prefix["depth"])[0]
        close(actions, golden["actions"], 2e-5, f"{name}: actions")
        for i, view in enumerate(config["depth"]["views"]):
            expected = golden[f"depth.{view}"]
            close(maps[i] / expected, torch.ones_like(expected), 1e-4, f"{name}: depth of {view}")


def test_padded_prompts_equal_unpadded() -> None:
    for changes in ({}, {"positions": {"mode": "per_mixture", "base": 1}, "depth__proprio_sees_depth": False}):
        config = small(**changes)
        torch.manual_seed(0)
        model = DepthVla(config)
        images, depth, tokens, _, state = inputs(config)
        lengths = torch.tensor([3, 5, 4])
        x, t = torch.randn(3, 1, config["horizon"], config["action_dim"]), torch.rand(3, 1)
        with torch.no_grad():
            together = model.velocity(model.prefix(images, depth, tokens, lengths), state, x, t)
            for i, n in enumerate(lengths):
                one = slice(i, i + 1)
                alone = model.prefix(images[one], depth[one], tokens[one, :n], lengths[one])
                close(together[one], model.velocity(alone, state[one], x[one], t[one]), 2e-5, f"prompt of {n} tokens")


def test_chunks_do_not_see_each_other() -> None:
    config = small()
    model = DepthVla(config)
    images, depth, tokens, lengths, state = inputs(config)
    x, t = torch.randn(3, 4, config["horizon"], config["action_dim"]), torch.rand(3, 4)
    with torch.no_grad():
        prefix = model.prefix(images, depth, tokens, lengths)
        together = model.velocity(prefix, state, x, t)
        for k in range(4):
            alone = model.velocity(prefix, state, x[:, k : k + 1], t[:, k : k + 1])
            close(together[:, k : k + 1], alone, 2e-5, f"noise {k}")


def test_gradients() -> None:
    """RMSNorm's own backward pass, by differences; and that every loss reaches what it should."""
    from model import RmsNormFunction

    x, w = torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True), torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: RmsNormFunction.apply(x, w, 1e-6), (x, w))
    config = small()
    for weights, silent in (({"flow": 1.0}, ("depth_head", "mixtures.depth.norm")), ({"depth_silog": 1.0}, ("vlm", "action", "vision")), ({"grounding": 1.0}, ("depth", "action"))):
        torch.manual_seed(0)
        model, head = DepthVla(config), losses.Grounding(config["vlm"]["width"])
        images, depth, tokens, lengths, state = inputs(config)
        side = config["depth"]["encoder"]["image_size"]
        batch = {"images": images, "depth_images": depth, "tokens": tokens, "lengths": lengths, "state": state,
                 "actions": torch.randn(3, 16, 6), "valid": torch.ones(3, 16, dtype=torch.bool), "pixel": torch.rand(3, 2, 2, 2),
                 "log_depth": torch.randn(3, 1, side, side), "depth_weight": torch.ones(3, 1, side, side)}
        sum(losses.losses(model, head, batch, weights, 2, torch.Generator().manual_seed(0)).values()).backward()
        for name, p in model.named_parameters():
            reached = p.grad is not None and float(p.grad.abs().max()) > 0
            assert not (reached and any(s in name for s in silent)), f"{sorted(weights)} must not reach {name}"
        assert any(p.grad is not None for p in model.parameters())


def test_padded_steps_have_no_loss() -> None:
    config = small()
    model, head = DepthVla(config), losses.Grounding(32)
    images, depth, tokens, lengths, state = inputs(config)
    valid = torch.ones(3, 16, dtype=torch.bool)
    valid[:, 9:] = False
    # What a padded step holds enters the noisy chunk, as in lerobot; what it should be has no loss: at t = 1 it is noise alone.
    batch = {"images": images, "depth_images": depth, "tokens": tokens, "lengths": lengths, "state": state, "actions": torch.randn(3, 16, 6), "valid": valid}
    found = losses.losses(model, head, batch, {"flow": 1.0}, 2, torch.Generator().manual_seed(0))["flow"]
    t = losses.flow_times(3, 2, config, torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(0)
    t = losses.flow_times(3, 2, config, g)
    noise = torch.randn(3, 2, 16, 6, generator=g)
    x, target = losses.noisy(batch["actions"], noise, t, config)
    v = model.velocity(model.prefix(images, depth, tokens, lengths), state, x, t)
    close(found, ((v - target)[:, :, :9] ** 2).mean(), 1e-5, "flow loss of the steps within the episode")


def test_prompts() -> None:
    """The tokens of the runtime's own tests of its tokenizer, and words of tasks."""
    tokenizer = Tokenizer.of_tasks(["reach for the red block", "pick up_the blue block"], 320)
    tokens = tokenizer.prompt("reach for the red block\n", "task")
    assert len(tokens) == 7 and tokens[0] == 2 and tokens[-1] == 4, tokens
    assert tokenizer.prompt("reach_for the red block", "task") == tokens
    other = tokenizer.prompt("go", "task")  # bytes
    assert other == [2, *(tokenizer.vocab[f"<0x{ord(c):02X}>"] for c in "go"), 4], other
    try:
        Tokenizer.of_tasks(["a b c d e f g h"], 262)
        raise AssertionError("expected too few rows to be refused")
    except ValueError as error:
        assert "model.vocab" in str(error)


def refused(what: str, kind, call) -> None:
    try:
        call()
    except kind as error:
        assert what in str(error), f"expected an error about {what!r}, found {error}"
        return
    raise AssertionError(f"expected an error about {what!r}")


def test_errors_name_the_key() -> None:
    config = small()
    E = settings.SettingsError
    refused("time_conditioning", E, lambda: settings.check_model({**config, "time_conditioning": "ada_rms"}, "c"))
    refused("prompt", E, lambda: settings.check_model({**config, "prompt": "galaxea"}, "c"))
    refused("widths", E, lambda: settings.check_model({**config, "widths": 3}, "c"))
    refused("model.layer", E, lambda: settings.complete({"layer": 3}, settings.MODEL, "model"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.toml"
        stage = '[[stage]]\nname = "a"\nsteps = 1\nbatch = 1\nlr = 1e-3\nlosses = { flow = 1.0, deep = 1.0 }\n'
        path.write_text(f'[data]\npath = "x"\n{stage}')
        refused("deep", E, lambda: settings.load(path))
        path.write_text(stage.replace(", deep = 1.0", ""))
        refused("data.path", E, lambda: settings.load(path))
        path.write_text('[data]\npath = "x"\nspeed = 1\n' + stage)
        refused("data.speed", E, lambda: settings.load(path))


def dataset(config: dict, **changes) -> data.Dataset:
    given = {**settings.DATA, "path": str(DATA), "plan": "action.plan", "pixel": "annotation.pixel", **changes}
    return data.Dataset(given, config, 0, lambda _: None)


def test_data_set_of_lerobot() -> None:
    """A set that lerobot wrote: values, the chunks of following frames as lerobot's delta timestamps make them, decoding on
    the fly, and errors."""
    config = small(vision__image_size=112, depth__encoder__image_size=112, depth__pos_grid=8)
    whole, plan = dataset(config, plan=""), dataset(config)
    assert len(whole.state) == 144 and len(whole.held_out) == 12 and not set(whole.train) & set(whole.held_out)
    chunk, valid = whole.chunk(np.array([0, 5]))
    assert valid.sum(1).tolist() == [12, 7]
    expected = whole.action[5:12] - whole.state[5]
    assert np.array_equal(chunk[1, :7], expected) and np.array_equal(chunk[1, 7:], np.repeat(expected[-1:], 9, 0))
    assert np.allclose(plan.chunk(np.array([5]))[0][0, 0], whole.chunk(np.array([5]))[0][0, 0])  # the set's action is its plan's first
    frames = whole.train[[3, 50, 100]]
    part = dataset(config, plan="", cache_gib=0.003)
    assert 0 < part.cached < 144
    for name, value in whole.batch(frames).items():
        assert torch.equal(value, part.batch(frames)[name]), name
    batch = whole.batch(frames)
    depth = batch["log_depth"].exp()
    assert abs(float(depth.min()) - 0.6) < 1e-6 and not batch["has_depth"][:, :, :6].any() and batch["has_depth"][:, :, 6:].all()
    normalized = batch["actions"][0, 0, : 6].numpy()
    assert np.allclose(whole.statistics.unnormalize("actions", normalized) + whole.state[frames[0]], whole.action[frames[0]], atol=1e-5)
    other = dataset(small(), cache_gib=0.001)  # 112 to 56 pixels
    assert other.batch(frames)["images"].shape[2:4] == (56, 56)
    E = data.DataError
    refused("observation.images.none", E, lambda: dataset(config, views={"base": "observation.images.none", "wrist": "observation.images.wrist"}))
    refused("chunk_hz", E, lambda: dataset(config, plan="", chunk_hz=4.0))
    refused("validation_episodes", E, lambda: dataset(config, validation_episodes=12.0))


def configuration_file(folder: Path, extra: str = "", steps: int = 8) -> Path:
    path = folder / "config.toml"
    path.write_text(f"""
seed = 5
checkpoint_every = 3
validate_every = 100
log_every = 1
validation_frames = 8
export = "f32"
{extra}
[data]
path = "{DATA}"
plan = "action.plan"
pixel = "annotation.pixel"
[model]
layers = 2
vision = {{ width = 32, heads = 2, mlp = 64, layers = 1 }}
vlm = {{ width = 32, mlp = 64 }}
action = {{ width = 32, mlp = 64 }}
attention = {{ heads = 2, head_dim = 16 }}
depth = {{ encoder = {{ width = 32, heads = 2, mlp = 64, layers = 1 }}, expert = {{ width = 32, mlp = 64 }} }}
[[stage]]
name = "depth"
steps = 4
batch = 4
lr = 1e-3
train = ["depth_*", "joint_model.mixtures.depth.*"]
losses = {{ depth_l1 = 1.0, depth_silog = 0.5 }}
[[stage]]
name = "joint"
steps = {steps}
batch = 4
lr = 1e-3
noises = 2
jitter = 0.1
losses = {{ flow = 1.0, depth_l1 = 1.0, grounding = 0.1 }}
""")
    return path


class Run:
    """A training in a process of its own, forked: importing PyTorch takes longer than these trainings."""

    def __init__(self, config: Path, run: Path, *arguments: str):
        self.errors = tempfile.TemporaryFile("w+")
        with warnings.catch_warnings(action="ignore"):  # PyTorch runs in one thread here
            self.pid, self.code = os.fork(), None
        if not self.pid:
            os.dup2(self.errors.fileno(), 2)
            sys.argv = ["train.py", str(config), "--output", str(run), *arguments]
            code = 1
            try:
                code = train.main()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def running(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def stop(self, number: int) -> int:
        if self.running():
            os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        while self.running():
            time.sleep(0.005)
        return self.code

    def text(self) -> str:
        self.errors.seek(0)
        return self.errors.read()


def trained(config: Path, run: Path, *arguments: str) -> None:
    process = Run(config, run, *arguments)
    assert process.wait() == 0, process.text()


def weights(run: Path) -> dict:
    return load_file(run / "model/model.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def steps_of(run: Path) -> list:
    log = run / "log.jsonl"
    return [json.loads(l)["step"] for l in log.read_text().splitlines()] if log.exists() else []


def log_of(run: Path) -> list:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]


def interrupted(config: Path, run: Path, step: int, number: int) -> None:
    """Runs until `step` is logged, then sends the signal."""
    process = Run(config, run, "--quiet")
    while not any(s >= step for s in steps_of(run)) and process.running():
        time.sleep(0.002)
    code = process.stop(number)
    assert code in (-number, 128 + number, 0), process.text()


def repeat_and_resume(processes: int, precision: str) -> None:
    """The same seed gives the same weights bit for bit, also when the run was killed (SIGKILL: it continues from its last
    checkpoint) and stopped (SIGTERM: at that step) in between."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configuration_file(folder, f'processes = {processes}\nprecision = "{precision}"')
        a, b = folder / "a", folder / "b"
        trained(config, a)
        interrupted(config, b, 5, signal.SIGKILL)  # continues from the end of the first stage
        interrupted(config, b, 8, signal.SIGKILL)
        interrupted(config, b, 10, signal.SIGTERM)
        trained(config, b)
        assert same(weights(a), weights(b)), "a resumed run differs"
        assert log_of(a) == log_of(b), "the log of a resumed run differs"
        if processes == 1:
            trained(config, folder / "c")
            assert same(weights(a), weights(folder / "c")), "two runs of one seed differ"
            other = Run(config, b, "--set", "seed=6")
            assert other.wait() == 1 and "seed = 5" in other.text(), other.text()
        bad = Run(config, folder / "d", "--set", 'data.plan="action.no"')
        assert bad.wait() == 1 and "action.no" in bad.text() and "Traceback" not in bad.text(), bad.text()


def test_repeat_and_resume() -> None:
    repeat_and_resume(1, "f32")


def test_repeat_and_resume_of_two_processes() -> None:
    repeat_and_resume(2, "bf16")


def test_frozen_parts_and_adapters() -> None:
    """Fine-tuning from a directory: frozen tensors keep every bit, adapters are merged, and the export has the same names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained(configuration_file(folder, steps=2), folder / "a")
        (folder / "fine.toml").write_text(f"""
init = "a/model"
export = "f32"
[data]
path = "{DATA}"
pixel = "annotation.pixel"
statistics = "init"
[[stage]]
name = "fine"
steps = 3
batch = 4
lr = 1e-2
train = ["action_*", "joint_model.mixtures.action.*"]
losses = {{ flow = 1.0 }}
lora = {{ match = "joint_model.mixtures.vlm.*_proj", rank = 4, alpha = 8.0 }}
groups = [{{ match = "action_encoder.*", lr_scale = 0.0 }}]
""")
        trained(folder / "fine.toml", folder / "b")
        a, b = weights(folder / "a"), weights(folder / "b")
        assert a.keys() == b.keys()
        for name in a:
            changed = not torch.equal(a[name], b[name])
            adapted = "mixtures.vlm" in name and "_proj" in name
            expected = adapted or name.startswith(("action_decoder", "joint_model.mixtures.action"))
            assert changed == expected, f"{name}: expected {'a change' if expected else 'none'}"
        assert (folder / "a/model/norm_stats.json").read_text() == (folder / "b/model/norm_stats.json").read_text()


def test_equals_the_runtime() -> None:
    """Exported directories through `fathom infer`: prompts, statistics, relative actions; three normalisations and the
    options of both families."""
    command = shlex.split(os.environ["FATHOM"])
    variants = [
        {},
        {"normalization": {"mode": "quantile", "eps": 1e-6}, "relative_actions": [True, False], "horizon": 16,
         "depth__views": ["wrist"], "attention__kv_heads": 2, "attention__softcap": 20.0, "depth__head": "sigmoid"},
        {"normalization": {"mode": "minmax", "eps": 1e-6}, "positions": {"mode": "per_mixture", "base": 1}, "state_dim": 9,
         "action_dim": 8, "flow": {"steps": 5, "direction": "noise_at_zero", "clip": 1.0, "sig_min": 0.001},
         "time_embedding": {"kind": "open_pi_zero", "max_period": 100.0}, "action_head_layers": 2, "prompt": "lerobot",
         "depth__pos_grid": 5, "depth__pos_interpolation": "offset", "depth__proprio_sees_depth": False},
        {"depth": None, "state_token": False, "prompt": "open_pi_zero"},
    ]
    for i, changes in enumerate(variants):
        torch.manual_seed(i)
        embedding = {k: changes.pop(k) for k in ("time_embedding",) if k in changes}
        config = small(vision__image_size=112, **{k: v for k, v in changes.items() if k != "depth"})
        config = {**config, **embedding, "depth": None if "depth" in changes else {**config["depth"], "encoder": {**config["depth"]["encoder"], "image_size": 112}}}
        config = settings.check_model(config, "test")
        model = DepthVla(config)
        given = {**settings.DATA, "path": str(DATA), "depth": {}}
        reader = data.Dataset(given, config, 0, lambda _: None)
        with tempfile.TemporaryDirectory() as name:
            export.save(Path(name), config, model.state_dict(), reader.statistics, reader.tokenizer, ("bf16", "f32")[i % 2], {})
            failures = check.failures(check.compare(Path(name), given, 2, command))
        assert not failures, f"variant {i}: {failures}"


def main() -> int:
    global DATA
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    DATA = arguments.data and arguments.data.resolve()
    torch.set_num_threads(1)
    needs_data = {n for n in globals() if n.startswith("test_") and ("data" in n or "resume" in n or "frozen" in n or "runtime" in n)}
    failed = 0
    for name, test in [(n, f) for n, f in globals().items() if n.startswith("test_")]:
        if arguments.names and name.removeprefix("test_") not in arguments.names and name not in arguments.names:
            continue
        if name in needs_data and DATA is None:
            print(f"skipped {name}: no --data")
            continue
        if name == "test_equals_the_runtime" and not os.environ.get("FATHOM"):
            print(f"skipped {name}: no $FATHOM")
            continue
        begun = time.monotonic()
        try:
            test()
        except Exception as error:
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        else:
            print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
