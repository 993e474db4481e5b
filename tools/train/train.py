"""Trains a DepthVLA: `train.py CONFIG --output RUN`. See README.md for the configuration.

Every random number of a step is drawn from (seed, stage, step), and the order of the frames is a permutation of each epoch:
a run that was stopped at any step continues from its checkpoint with the same result, bit for bit.
"""

import argparse
import contextlib
import fnmatch
import json
import math
import os
import signal
import sys
import time
import traceback
from pathlib import Path

# Before these are imported: threads that are started by libraries would not survive the fork of `Processes`.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import numpy as np
import torch
import torch.distributed as dist

import curves
import export
import settings as configuration
from data import DataError, Dataset, sampled
from losses import Grounding, jitter, losses, validate
from model import DepthVla, Linear
from processes import BusyError, Processes
from progress import Progress, bar, clock
from prompts import Tokenizer

# Settings that may differ between a checkpoint and its continuation: none changes the weights.
FREE = ("checkpoint_every", "log_every", "export")


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


class Stage:
    """What trains in one stage, and its optimiser. `named` are all parameters by name, the grounding head's included."""

    def __init__(self, stage: dict, optimiser: dict, model: DepthVla, grounding: Grounding):
        self.stage, self.optimiser_settings = stage, optimiser
        if stage["lora"]:
            torch.manual_seed(0)
            adapted = [n for n, m in model.named_modules() if isinstance(m, Linear) and matches(n, [stage["lora"]["match"]])]
            if not adapted:
                raise configuration.refuse(f"stage {stage['name']}: lora.match", "a pattern that a Linear's name matches", stage["lora"]["match"])
            for name in adapted:
                model.get_submodule(name).adapt(stage["lora"]["rank"], stage["lora"]["alpha"])
        named = dict(model.named_parameters())
        chosen = {}
        for name, p in named.items():
            adapter = name.rsplit(".", 1)[-1] in ("lora_a", "lora_b")
            base = f"{name.rsplit('.', 1)[0]}.lora_a" in named and not adapter
            trains = matches(name, stage["train"]) and not matches(name, stage["freeze"]) and not base
            p.requires_grad_(adapter or trains)
            if adapter or trains:
                chosen[name] = p
        if not chosen:
            raise configuration.refuse(f"stage {stage['name']}: train", "patterns that match a tensor's name", stage["train"])
        for p in grounding.parameters():
            p.requires_grad_("grounding" in stage["losses"])
        if "grounding" in stage["losses"]:
            chosen |= {f"grounding.{n}": p for n, p in grounding.named_parameters()}
        self.chosen = chosen
        groups = {}
        for name, p in chosen.items():
            scale, decay = 1.0, optimiser["weight_decay"] if p.ndim > 1 else 0.0
            for group in stage["groups"]:
                if matches(name, [group["match"]]):
                    scale = group["lr_scale"]
                    decay = group["weight_decay"] if group["weight_decay"] >= 0 else decay
            groups.setdefault((scale, decay), []).append(p)
        self.optimiser = torch.optim.AdamW(
            [{"params": p, "weight_decay": decay, "scale": scale} for (scale, decay), p in groups.items()],
            lr=stage["lr"], betas=tuple(optimiser["betas"]), eps=optimiser["eps"], fused=True,
        )
        self.ema = {name: p.detach().clone() for name, p in chosen.items()}

    def rate(self, step: int) -> float:
        """Warm-up, then a cosine to 0."""
        warm = self.stage["warm_up"] or self.optimiser_settings["warm_up"]
        return self.stage["lr"] * min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / self.stage["steps"]))

    def step(self, step: int) -> float:
        """One update of weights and averages from the gradients; the gradient's norm before clipping."""
        rate = self.rate(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        norm = torch.nn.utils.clip_grad_norm_(self.chosen.values(), self.optimiser_settings["clip"])
        self.optimiser.step()
        self.optimiser.zero_grad()
        keep = min(self.optimiser_settings["ema"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), [p.detach() for p in self.chosen.values()], 1 - keep)
        return float(norm)

    @contextlib.contextmanager
    def averaged(self):
        """The averaged weights in the model's place."""
        with torch.no_grad():
            now = {n: p.detach().clone() for n, p in self.chosen.items()}
            for n, p in self.chosen.items():
                p.copy_(self.ema[n])
            try:
                yield
            finally:
                for n, p in self.chosen.items():
                    p.copy_(now[n])

    def finish(self, model: DepthVla) -> None:
        """The averages become the weights; adapters are merged."""
        with torch.no_grad():
            for n, p in self.chosen.items():
                p.copy_(self.ema[n])
        for module in model.modules():
            if isinstance(module, Linear):
                module.merge()


class Training:
    def __init__(self, settings: dict, output: Path, quiet: bool = False, processes: Processes | None = None):
        self.settings, self.output = settings, output
        self.processes = processes or Processes(1, output)
        self.rank = self.processes.rank
        torch.set_num_threads(settings["threads"])
        self.progress = Progress(quiet)
        self.say = lambda text: None if quiet else print(text, file=sys.stderr, flush=True)
        self.config = configuration.model_config(settings)
        torch.manual_seed(settings["seed"])
        self.model = DepthVla(self.config)
        self.grounding = Grounding(self.config["vlm"]["width"])
        tokenizer = statistics = None
        if settings["init"]:
            origin = Path(settings["init"])
            export.load_weights(self.model, origin)
            tokenizer = Tokenizer.open(origin / "tokenizer.json")
            if settings["data"]["statistics"] == "init":
                statistics = export.load_statistics(origin, self.config)
        if settings["tokenizer"]:
            tokenizer = Tokenizer.open(Path(settings["tokenizer"]))
        self.data = Dataset(settings["data"], self.config, settings["seed"], self.say, statistics, tokenizer, self.progress.over, self.processes)
        self._check_losses()
        if self.config["depth"] and self.config["depth"]["head"] == "log" and not settings["init"] and self.data.depth_features:
            batch = self.data.batch(self.data.train[:: max(1, len(self.data.train) // 64)][:64])
            with torch.no_grad():  # a head that begins at the mean is not trained to it
                self.model.depth_head.bias.fill_(float(batch["log_depth"][batch["depth_weight"] > 0].mean()))
        count = sum(p.numel() for p in self.model.parameters())
        self.say(f"{count:,} parameters: {count * 2 / 1e6:.1f} MB in bf16")
        self.stage_at = self.step_at = 0
        self.stop, self.seconds = 0, 0.0
        self.loaded = None

    def _check_losses(self) -> None:
        for stage in self.settings["stage"]:
            where, wanted = f"stage {stage['name']}: losses", set(stage["losses"])
            if wanted & {"depth_l1", "depth_silog"}:
                if not self.config["depth"] or self.config["depth"]["head"] == "none":
                    raise configuration.refuse(where, "no depth loss for a model without a depth head", sorted(wanted))
                if not self.data.depth_features:
                    raise configuration.refuse(where, "depth features in data.depth", self.settings["data"]["depth"])
            if "grounding" in wanted and self.data.pixel is None:
                raise configuration.refuse(where, "a feature in data.pixel", self.settings["data"]["pixel"])

    def total(self) -> int:
        return sum(s["steps"] for s in self.settings["stage"])

    def done(self) -> int:
        return sum(s["steps"] for s in self.settings["stage"][: self.stage_at]) + self.step_at

    # Checkpoints

    def checkpoint(self, stage: Stage | None) -> None:
        if self.rank:
            return
        state = {
            "settings": self.settings,
            "config": self.config,
            "stage": self.stage_at,
            "step": self.step_at,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "grounding": self.grounding.state_dict(),
            "optimiser": stage.optimiser.state_dict() if stage else None,
            "ema": stage.ema if stage else None,
        }
        part = self.output / "checkpoint.pt.part"
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.output / "checkpoint.pt")

    def resume(self) -> None:
        path = self.output / "checkpoint.pt"
        if not path.exists():
            return
        self.loaded = torch.load(path, map_location="cpu", weights_only=True)
        plain = lambda s: json.loads(json.dumps({k: v for k, v in s.items() if k not in FREE}))
        if (difference := first_difference(plain(self.loaded["settings"]), plain(self.settings))) is not None:
            key, before, now = difference
            raise configuration.SettingsError(
                f"{path}: expected {key} = {before!r}, as the run began, found {now!r}; give another --output for another run"
            )
        self.stage_at, self.step_at, self.seconds = (self.loaded[k] for k in ("stage", "step", "seconds"))
        self.say(f"resuming at step {self.done()} of {self.total()}")
        log = self.output / "log.jsonl"
        if log.exists() and not self.rank:
            lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.done()]
            log.write_text("".join(f"{line}\n" for line in lines))

    def _load(self) -> None:
        self.model.load_state_dict(self.loaded["model"])
        self.grounding.load_state_dict(self.loaded["grounding"])

    # Running

    def run(self) -> int:
        """Trains to the end, or until a signal; 0 or 128 + the signal."""
        s = self.settings
        if not self.rank:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._signalled)
        self.device = s["device"]
        self.autocast = lambda: torch.autocast(self.device, torch.bfloat16, enabled=s["precision"] == "bf16")
        self.model.to(self.device)
        self.grounding.to(self.device)
        while self.stage_at < len(s["stage"]):
            between = self.loaded and not self.loaded["optimiser"]
            if between:  # from the end of a stage: the next one begins from these weights
                self._load()
            stage = Stage(s["stage"][self.stage_at], s["optimiser"], self.model, self.grounding)
            if self.loaded and not between:  # within a stage, which has made its adapters by now
                self._load()
                stage.optimiser.load_state_dict(self.loaded["optimiser"])
                for name, value in stage.ema.items():
                    value.copy_(self.loaded["ema"][name])
            self.loaded = None
            if not self._run_stage(stage):
                return 128 + self.stop
            self.validate(stage)
            stage.finish(self.model)
            self.stage_at, self.step_at = self.stage_at + 1, 0
            self.export()
            self.checkpoint(None)
        self.say(f"{self.output}/model: the trained model; {self.output}/curves.html: its curves")
        return 0

    def _signalled(self, number, _frame) -> None:
        if self.stop:
            raise SystemExit(128 + number)
        self.stop = number

    def _run_stage(self, stage: Stage) -> bool:
        s, spec = self.settings, stage.stage
        weights, steps = spec["losses"], spec["steps"]
        parts, own = s["processes"], spec["batch"] // s["processes"]
        begun, first, cpu = time.monotonic(), self.step_at, time.process_time()
        sums, count = {}, 0
        while self.step_at < steps:
            generator = torch.Generator().manual_seed(random_seed(s["seed"], self.stage_at, self.step_at))
            frames = sampled(self.data.train, s["seed"], self.stage_at, self.step_at, spec["batch"])
            batch = self.data.batch(frames[self.rank * own : (self.rank + 1) * own])
            if spec["jitter"]:
                images = jitter(self.data.batch(frames)["images"] if parts > 1 else batch["images"], spec["jitter"], generator)
                batch["images"] = images[self.rank * own : (self.rank + 1) * own] if parts > 1 else images
                if self.data.depth_size == self.data.size and self.data.depth_view:
                    batch["depth_images"] = batch["images"][:, self.data.depth_view].contiguous()
            batch = {k: v.to(self.device) for k, v in batch.items()}
            with self.autocast():
                values = losses(self.model, self.grounding, batch, weights, spec["noises"], generator, (self.rank, parts))
                total = sum(weights[name] * value for name, value in values.items())
            if not math.isfinite(float(total.detach())):
                raise FloatingPointError(f"stage {spec['name']}, step {self.step_at}: expected a finite loss, found {({k: float(v) for k, v in values.items()})}")
            total.backward()
            stop = self._reduce(stage) if parts > 1 else self.stop
            norm = stage.step(self.step_at)
            self.step_at += 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            count += 1
            now = time.monotonic()
            rate = (self.step_at - first) / (now - begun)
            left = (steps - self.step_at) / rate
            self.progress.show(
                f"{spec['name']} {bar(self.step_at / steps)} {self.step_at}/{steps}  "
                + "  ".join(f"{k} {v / count:.4f}" for k, v in sums.items())
                + f"  {rate:.2f} steps/s, {clock(left)} left in this stage",
                self.step_at == steps,
            )
            if self.step_at % s["log_every"] == 0 or self.step_at == steps:
                self.log("train", {
                    **{k: v / count for k, v in sums.items()}, "lr": stage.rate(self.step_at - 1), "gradient_norm": norm,
                    "seconds": round(self.seconds + now - begun, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
                })
                sums, count = {}, 0
            if self.step_at % s["validate_every"] == 0 and self.step_at < steps:
                self.validate(stage)
            if stop or self.step_at % s["checkpoint_every"] == 0:
                seconds, self.seconds = self.seconds, self.seconds + time.monotonic() - begun
                self.checkpoint(stage)
                if stop:
                    self.stop = self.stop or int(signal.SIGTERM)
                    self.say(f"\nstopped at step {self.done()} of {self.total()}; the same command resumes")
                    return False
                self.seconds = seconds
        self.seconds += time.monotonic() - begun
        return True

    def _reduce(self, stage: Stage) -> int:
        """Averages the gradients of all processes, and tells all of them whether one was signalled."""
        parameters = [p for p in stage.chosen.values() if p.grad is not None]
        flat = torch.cat([*(p.grad.flatten() for p in parameters), torch.tensor([float(bool(self.stop))])])
        dist.all_reduce(flat)
        stop = int(flat[-1] > 0)
        flat /= self.settings["processes"]
        at = 0
        for p in parameters:
            p.grad = flat[at : at + p.numel()].view_as(p)
            at += p.numel()
        return stop

    def validate(self, stage: Stage) -> None:
        s = self.settings
        if self.rank or not len(self.data.held_out) or not s["validation_frames"]:
            return
        count = min(s["validation_frames"], len(self.data.held_out))
        frames = self.data.held_out[np.linspace(0, len(self.data.held_out) - 1, count).astype(int)]
        with stage.averaged():
            found = validate(
                self.model, self.grounding, self.data, frames, stage.stage["losses"], s["validation_seed"], self.device, self.autocast
            )
        self.say(f"\n{stage.stage['name']} {self.step_at}: held out: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()))
        self.log("validation", found)

    def log(self, kind: str, values: dict) -> None:
        if self.rank:
            return
        spec = self.settings["stage"][self.stage_at]
        line = {"kind": kind, "stage": spec["name"], "step": self.done(), "stage_step": self.step_at, **values}
        with open(self.output / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        if kind == "validation":
            curves.write(self.output)

    def export(self) -> None:
        if self.rank:
            return
        # Without this computer's folders.
        data = {**self.settings["data"], "path": Path(self.settings["data"]["path"]).name}
        files = {key: Path(self.settings[key]).name for key in ("init", "tokenizer")}
        record = {"settings": {**self.settings, **files, "data": data}, "steps": self.done(), "seconds": round(self.seconds, 1),
                  "frames": len(self.data.train), "held_out": len(self.data.held_out), "tasks": self.data.tasks}
        log = [json.loads(line) for line in (self.output / "log.jsonl").read_text().splitlines()]
        if checked := [line for line in log if line["kind"] == "validation"]:
            record["validation"] = checked[-1]
        export.save(self.output / "model", self.config, self.model.state_dict(), self.data.statistics, self.data.tokenizer,
                    self.settings["export"], record)
        curves.write(self.output)


def random_seed(*parts: int) -> int:
    return int(np.random.SeedSequence([2, *parts]).generate_state(1, np.uint64)[0] >> 1)


def first_difference(a, b, key: str = "") -> tuple | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for k in [*a, *(k for k in b if k not in a)]:
            if (found := first_difference(a.get(k), b.get(k), f"{key}.{k}".lstrip("."))) is not None:
                return found
        return None
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if (found := first_difference(x, y, f"{key}.{i}")) is not None:
                return found
        return None
    return None if a == b else (key, a, b)


def main() -> int:
    parser = argparse.ArgumentParser(prog="fathom-train", description="Train a DepthVLA from LeRobot v3.0 data sets. A run that was stopped resumes with the same command.")
    parser.add_argument("config", type=Path, help="configuration (TOML); tools/train/demo.toml is the demo's")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run: model/, checkpoint.pt, log.jsonl, curves.html")
    parser.add_argument("--data", help="the data set's folder, in place of data.path")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a key, e.g. seed=3, data.cache_gib=2.0, stage.0.steps=100")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    arguments = parser.parse_args()
    overrides = list(arguments.set)
    if arguments.data:
        overrides.append(f"data.path={json.dumps(str(Path(arguments.data).resolve()))}")
    processes = None
    try:
        settings = configuration.load(arguments.config, overrides)
        arguments.output.mkdir(parents=True, exist_ok=True)
        processes = Processes(settings["processes"], arguments.output)
        training = Training(settings, arguments.output, arguments.quiet or processes.rank > 0, processes)
        training.resume()
    except (configuration.SettingsError, DataError, BusyError, export.DirectoryError, FileNotFoundError, ValueError) as error:
        if processes is None or not processes.rank:
            print(f"fathom-train: {error}", file=sys.stderr)
        return processes.close(1) if processes else 1
    except BaseException:
        if processes:
            processes.close(1)
        raise
    try:
        code = training.run()
    except SystemExit as exit_:  # a second signal
        code = 1 if not isinstance(exit_.code, int) else exit_.code
        for pid in processes.children:
            os.kill(pid, signal.SIGKILL)
    except BaseException:
        traceback.print_exc()
        code = 1
    return processes.close(code)


if __name__ == "__main__":
    sys.exit(main())
