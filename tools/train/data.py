"""Reads LeRobot v3.0 data sets for training, with pyarrow alone.

Layout (huggingface/lerobot 0.6): `meta/info.json`, `meta/tasks.parquet`, `data/chunk-*/file-*.parquet`. Images are columns of
dtype `image` (a struct of bytes and path, PNG or JPEG); depth is a 16-bit PNG in millimetres, 0 where there is none.
"""

import io
import json
import math
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from prompts import Tokenizer


class DataError(Exception):
    """A part of a data set, what was expected and what was found."""


def fit(width: int, height: int, size: int) -> tuple:
    """new_width, new_height, left, top of an image that keeps its aspect ratio in a square (openpi `resize_with_pad`)."""
    if (width, height) == (size, size):
        return size, size, 0, 0
    ratio = max(width / size, height / size)
    new_width, new_height = int(width / ratio), int(height / ratio)
    return new_width, new_height, int((size - new_width) / 2), int((size - new_height) / 2)


def square(image: Image.Image, size: int, how: int) -> np.ndarray:
    """The image in a square of `size`, padded with 0."""
    if image.size == (size, size):
        return np.asarray(image)
    width, height, left, top = fit(*image.size, size)
    resized = np.asarray(image.resize((width, height), resample=how))
    out = np.zeros((size, size, *resized.shape[2:]), resized.dtype)
    out[top : top + height, left : left + width] = resized
    return out


def column(table: pa.Table, name: str, shape: tuple, dtype) -> np.ndarray:
    """A column of numbers or (nested) lists of them: (rows, *shape)."""
    array = table[name].combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_nested(array.type):
            array = array.flatten()
        else:
            break
    values = array.to_numpy(zero_copy_only=False).astype(dtype)
    rows = table.num_rows
    if values.size != rows * math.prod(shape):
        raise DataError(f"{name}: expected {math.prod(shape)} numbers in each of {rows} rows, found {values.size} in all")
    return values.reshape(rows, *shape)


class Statistics:
    """Normalisation of state and actions as the runtime does it (models/src/processing/normalize.rs)."""

    def __init__(self, lists: dict, mode: dict):
        self.lists, self.mode = lists, mode
        self.maps = {}
        for name, s in lists.items():
            a = {k: np.asarray(v, np.float32) for k, v in s.items()}
            eps = np.float32(mode["eps"])
            if mode["mode"] == "zscore":
                self.maps[name] = (a["mean"], a["std"] + eps)
            else:
                low, high = (a["q01"], a["q99"]) if mode["mode"] == "quantile" else (a["min"], a["max"])
                half = (high - low + eps) / 2
                self.maps[name] = (low + half, half)

    @classmethod
    def of(cls, state: np.ndarray, actions: np.ndarray, mode: dict, floor: float) -> "Statistics":
        """Of states (n, D) and valid actions (n, A). Deviations and spans are at least `floor`: an element that never
        changes is not blown up, and the runtime refuses statistics without spread."""
        lists = {}
        for name, values in (("state", state.astype(np.float64)), ("actions", actions.astype(np.float64))):
            q01, q99 = np.quantile(values, (0.01, 0.99), axis=0)
            s = {"mean": values.mean(0), "std": np.maximum(values.std(0), floor)}
            for low, high, a, b in (("q01", "q99", q01, q99), ("min", "max", values.min(0), values.max(0))):
                grow = np.maximum(2 * floor - (b - a), 0) / 2
                s[low], s[high] = a - grow, b + grow
            lists[name] = {k: np.float32(v).tolist() for k, v in s.items()}
        return cls(lists, mode)

    def normalize(self, name: str, x: np.ndarray) -> np.ndarray:
        offset, scale = self.maps[name]
        return (x - offset) / scale

    def unnormalize(self, name: str, x: np.ndarray) -> np.ndarray:
        offset, scale = self.maps[name]
        return x * scale + offset


class Dataset:
    """A data set for one model configuration. `say` takes lines about what was read."""

    def __init__(self, settings: dict, config: dict, seed: int, say=print, statistics: Statistics | None = None,
                 tokenizer: Tokenizer | None = None, progress=lambda items, label: items,
                 processes=None):
        self.settings, self.config = settings, config
        self.root, self._median = Path(settings["path"]), None
        self.size = config["vision"]["image_size"]
        self.depth_size = config["depth"]["encoder"]["image_size"] if config["depth"] else self.size
        self._read_features()
        self._read_numbers()
        self._read_tasks()
        self._split(seed)
        self._chunks()
        if statistics is None:
            sample = np.sort(np.random.default_rng(seed).permutation(self.train)[:50_000])
            chunk, valid = self.chunk(sample)
            statistics = Statistics.of(
                self.state[sample], chunk[valid], config["normalization"], settings["std_floor"]
            )
        self.statistics = statistics
        self.tokenizer = tokenizer or Tokenizer.of_tasks(self.tasks, config["vocab"])
        prompts = [self.tokenizer.prompt(task, config["prompt"]) for task in self.tasks]
        used = [p for i, p in enumerate(prompts) if (self.task == i).any()]
        if (longest := max(map(len, used))) > config["max_tokens"]:
            raise DataError(f"{self.root}: expected prompts of at most max_tokens = {config['max_tokens']} tokens, found {longest}")
        if (largest := max(max(p) for p in used)) >= config["vocab"]:
            raise DataError(f"tokenizer: expected tokens below vocab = {config['vocab']}, found {largest}")
        self.tokens = np.zeros((len(prompts), longest), np.int64)
        self.lengths = np.array([min(len(p), longest) for p in prompts])
        for row, p in zip(self.tokens, prompts, strict=True):
            row[: len(p)] = p[:longest]
        self._decode(progress, say, processes)
        say(
            f"{self.root}: {len(self.train)} frames to train, {len(self.held_out)} held out, of "
            f"{len(self.episodes)} episodes; {len(self.tasks)} tasks; labels: {settings['plan'] or settings['action']}"
            f"{', depth' if self.depth_features else ''}{', pixels' if settings['pixel'] else ''}"
        )

    def _read_features(self) -> None:
        path = self.root / "meta/info.json"
        if not path.exists():
            raise DataError(f"{path}: expected a LeRobot v3.0 data set, found no such file")
        info = json.loads(path.read_text())
        version = info.get("codebase_version")
        if not str(version).startswith("v3"):
            raise DataError(f"{path}: expected codebase_version v3.0, found {version!r} (lerobot converts older ones)")
        self.fps, self.features = float(info["fps"]), info["features"]
        self.image_features = [self._image(self.settings["views"], view) for view in self.config["views"]]
        self.depth_features = []
        if self.config["depth"] and self.settings["depth"]:
            self.depth_features = [self._image(self.settings["depth"], view) for view in self.config["depth"]["views"]]

    def _image(self, names: dict, view: str) -> str:
        if view not in names:
            raise DataError(f"data.views or data.depth: expected a feature for the model's view {view!r}, found {sorted(names)}")
        name = names[view]
        dtype = self._feature(name)["dtype"]
        if dtype != "image":
            raise DataError(
                f"{name}: expected dtype image, found {dtype}. Videos are not decoded here: lerobot's own tools make images "
                "of them (load the set with LeRobotDataset and write its frames to one created with use_videos=False)"
            )
        return name

    def _feature(self, name: str) -> dict:
        if name not in self.features:
            raise DataError(f"{self.root}: expected a feature {name!r}, found {sorted(self.features)}")
        return self.features[name]

    def _read_numbers(self) -> None:
        s = self.settings
        self.files = sorted(self.root.glob("data/*/*.parquet"))
        if not self.files:
            raise DataError(f"{self.root}/data: expected parquet files, found none")
        names = {s["state"]: np.float32, s["action"]: np.float32, "task_index": np.int64, "episode_index": np.int64}
        for key in ("plan", "pixel"):
            if s[key]:
                names[s[key]] = np.float32
        shapes = {n: tuple(self._feature(n)["shape"]) if n not in ("task_index", "episode_index") else () for n in names}
        parts, self.groups = [], []
        for at, path in enumerate(self.files):
            file = pq.ParquetFile(path)
            if missing := [n for n in [*names, *self.image_features, *self.depth_features] if n not in file.schema_arrow.names]:
                raise DataError(f"{path}: expected the columns {missing}, found {file.schema_arrow.names}")
            table = file.read(columns=list(names))
            parts.append([column(table, n, shapes[n], d) for n, d in names.items()])
            self.groups += [(at, g, file.metadata.row_group(g).num_rows) for g in range(file.num_row_groups)]
        values = dict(zip(names, (np.concatenate(p) for p in zip(*parts, strict=True)), strict=True))
        most = s["max_frames"]
        if most:
            values = {k: v[:most] for k, v in values.items()}
        self.state, self.action = values[s["state"]], values[s["action"]]
        self.task, self.episode = values["task_index"], values["episode_index"]
        self.plan = values[s["plan"]] if s["plan"] else None
        self.pixel = values[s["pixel"]] if s["pixel"] else None
        self.first_row = np.concatenate(([0], np.cumsum([n for *_, n in self.groups])))
        c = self.config
        for name, array, dims in (("state", self.state, "state_dim"), ("action", self.action, "action_dim")):
            if array.ndim != 2 or array.shape[1] > c[dims]:
                raise DataError(f"{s[name]}: expected a vector of at most {dims} = {c[dims]}, found shape {array.shape[1:]}")
            if not np.isfinite(array).all():
                raise DataError(f"{s[name]}: expected finite numbers, found others in frame {np.argwhere(~np.isfinite(array))[0][0]}")
        if self.plan is not None and self.plan.shape[1:] != (c["horizon"], self.action.shape[1]):
            raise DataError(f"{s['plan']}: expected shape {(c['horizon'], self.action.shape[1])}, found {self.plan.shape[1:]}")
        if self.pixel is not None and self.pixel.shape[1:] != (len(c["views"]), 2, 2):
            raise DataError(f"{s['pixel']}: expected shape {(len(c['views']), 2, 2)}, found {self.pixel.shape[1:]}")

    def _read_tasks(self) -> None:
        path = self.root / "meta/tasks.parquet"
        table = pq.read_table(path)
        text = next((n for n in ("task", "__index_level_0__") if n in table.column_names), None)
        if text is None or "task_index" not in table.column_names:
            raise DataError(f"{path}: expected the columns task_index and task, found {table.column_names}")
        names = dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))
        if unknown := sorted(set(self.task.tolist()) - set(names)):
            raise DataError(f"{path}: expected a text for every task_index, found none for {unknown[:5]}")
        self.tasks = [str(names.get(i, "")) for i in range(max(names) + 1)]

    def _split(self, seed: int) -> None:
        """Whole episodes are held out, chosen by the seed."""
        self.episodes = np.unique(self.episode)
        share, n = self.settings["validation_episodes"], len(self.episodes)
        count = int(share) if share >= 1 or share == 0 else max(1, round(share * n))
        if count >= n:
            raise DataError(f"data.validation_episodes: expected fewer than the data set's {n} episodes, found {count}")
        out = np.random.default_rng([seed, 17]).permutation(self.episodes)[:count]
        held = np.isin(self.episode, out)
        self.train, self.held_out = np.flatnonzero(~held), np.flatnonzero(held)

    def _chunks(self) -> None:
        rate = self.settings["chunk_hz"] or self.fps
        self.stride = round(self.fps / rate)
        if self.stride < 1 or abs(self.fps / rate - self.stride) > 1e-3:
            raise DataError(f"data.chunk_hz: expected a whole fraction of the data set's {self.fps} Hz, found {rate}")
        starts = np.flatnonzero(np.diff(self.episode, prepend=self.episode[0] - 1))
        if len(starts) != len(self.episodes):
            raise DataError(f"{self.root}: expected the frames of an episode in one run, found episodes in several")
        self.end = np.repeat(np.append(starts[1:], len(self.episode)), np.diff(np.append(starts, len(self.episode))))
        relative = np.zeros(self.action.shape[1], np.float32)
        given = self.config["relative_actions"][: len(relative)]
        relative[: len(given)] = given
        self.relative = relative

    def chunk(self, frames: np.ndarray) -> tuple:
        """Actions (n, H, A) as the model gives them before normalisation (relative ones minus the state), and which steps
        lie within the episode (n, H). Steps beyond repeat the last action, as lerobot pads."""
        h, a = self.config["horizon"], self.action.shape[1]
        if self.plan is not None:
            chunk, valid = self.plan[frames], np.ones((len(frames), h), bool)
        else:
            at = frames[:, None] + self.stride * np.arange(h)
            valid = at < self.end[frames][:, None]
            chunk = self.action[np.minimum(at, self.end[frames][:, None] - 1)]
        state = np.zeros((len(frames), a), np.float32)
        n = min(a, self.state.shape[1])
        state[:, :n] = self.state[frames][:, :n]
        return chunk - (self.relative * state)[:, None], valid

    def _decode(self, progress, say, processes) -> None:
        """Decodes frames into memory up to `cache_gib`; those beyond are decoded when they are drawn."""
        views, maps = len(self.image_features), len(self.depth_features)
        also = self.config["depth"] is not None and self.depth_size != self.size
        self.depth_view = [self.config["views"].index(v) for v in self.config["depth"]["views"]] if self.config["depth"] else []
        each = views * self.size**2 * 3 + maps * self.depth_size**2 * 2
        each += len(self.depth_view) * self.depth_size**2 * 3 if also else 0
        total = len(self.state)
        self.cached = min(total, int(self.settings["cache_gib"] * 2**30 // each))
        make = processes.array if processes else lambda _, shape, dtype: np.empty(shape, dtype)
        self.images = make("images", (self.cached, views, self.size, self.size, 3), np.uint8)
        self.depths = make("depths", (self.cached, maps, self.depth_size, self.depth_size), np.uint16)
        shape = (self.cached if also else 0, len(self.depth_view), self.depth_size, self.depth_size, 3)
        self.depth_images = make("depth_images", shape, np.uint8)
        self.open, self.tables = OrderedDict(), OrderedDict()

        def one(row: int, record: dict) -> None:
            self.images[row], self.depths[row], other = self._frame(record)
            if also:
                self.depth_images[row] = other

        if not processes or not processes.rank:
            with ThreadPoolExecutor(self.settings["decode_threads"]) as pool:
                for group in progress(range(len(self.groups)), "decoding"):
                    first = int(self.first_row[group])
                    if first >= self.cached:
                        break
                    rows = self._group(group, keep=False)
                    n = min(len(rows), self.cached - first)
                    list(pool.map(one, range(first, first + n), rows[:n]))
        if processes:
            processes.meet()
        if self.cached < total:
            say(f"{self.root}: {self.cached} of {total} frames fit in data.cache_gib = {self.settings['cache_gib']}; the others "
                "are decoded at every use")

    def _group(self, group: int, keep: bool = True) -> list:
        """Encoded images of one row group."""
        if group in self.tables:
            self.tables.move_to_end(group)
            return self.tables[group]
        at, inside, _ = self.groups[group]
        if at not in self.open:
            self.open[at] = pq.ParquetFile(self.files[at], memory_map=True)
        columns = [*self.image_features, *self.depth_features]
        rows = self.open[at].read_row_group(inside, columns=columns).select(columns).to_pylist()
        if keep:
            self.tables[group] = rows
            while len(self.tables) > 8:
                self.tables.popitem(last=False)
        return rows

    def _open_image(self, value: dict) -> Image.Image:
        if value["bytes"] is not None:
            return Image.open(io.BytesIO(value["bytes"]))
        return Image.open(self.root / value["path"])

    def _frame(self, record: dict) -> tuple:
        """u8 (V, S, S, 3), u16 mm (M, s, s), and the depth branch's u8 images (D, s, s, 3) where its size differs."""
        pictures = [self._open_image(record[n]).convert("RGB") for n in self.image_features]
        if self.config["resize"] != "pillow_bilinear" and (odd := {p.size for p in pictures} - {(self.size, self.size)}):
            raise DataError(
                f"resize: expected pillow_bilinear for images of another size than {self.size}, found "
                f"{self.config['resize']} and {odd}: give images of the model's size, or \"resize\": \"pillow_bilinear\""
            )
        images = np.stack([square(p, self.size, Image.BILINEAR) for p in pictures])
        depths = [self._depth(record[n], n) for n in self.depth_features]
        other = None
        if self.depth_view and self.depth_size != self.size:
            other = np.stack([square(pictures[i], self.depth_size, Image.BILINEAR) for i in self.depth_view])
        return images, np.stack(depths) if depths else np.empty((0, self.depth_size, self.depth_size), np.uint16), other

    def _depth(self, value: dict, name: str) -> np.ndarray:
        image = self._open_image(value)
        if not image.mode.startswith("I"):
            raise DataError(f"{name}: expected 16-bit images in millimetres, found mode {image.mode}")
        array = np.asarray(image)
        size = self.depth_size
        if array.shape != (size, size):  # nearest: depths of an edge's two sides have no mean
            width, height, left, top = fit(image.width, image.height, size)
            rows = np.minimum(((np.arange(height) + 0.5) * image.height / height).astype(int), image.height - 1)
            columns = np.minimum(((np.arange(width) + 0.5) * image.width / width).astype(int), image.width - 1)
            out = np.zeros((size, size), array.dtype)
            out[top : top + height, left : left + width] = array[rows[:, None], columns]
            array = out
        return np.clip(array, 0, 65535).astype(np.uint16)

    def _pictures(self, frames: np.ndarray) -> tuple:
        """As `_frame`, of several."""
        if self.cached == len(self.state):
            other = self.depth_images[frames] if len(self.depth_images) else None
            return self.images[frames], self.depths[frames], other
        parts = []
        for f in frames:
            if f < self.cached:
                other = self.depth_images[f] if len(self.depth_images) else None
                parts.append((self.images[f], self.depths[f], other))
            else:
                group = int(np.searchsorted(self.first_row, f, "right") - 1)
                parts.append(self._frame(self._group(group)[f - self.first_row[group]]))
        images, depths, other = zip(*parts, strict=True)
        return np.stack(images), np.stack(depths), None if other[0] is None else np.stack(other)

    def batch(self, frames: np.ndarray) -> dict:
        """Tensors of frames (B): `images` u8 (B, V, S, S, 3), `depth_images` of the depth branch, `tokens` (B, T), `lengths`
        (B), `state` (B, state_dim) and `actions` (B, H, action_dim) normalised and padded with 0, `valid` (B, H),
        `log_depth` (B, M, s, s) in log metres and `depth_weight` (0 or 1), `has_depth` (bool: a true depth), `pixel`
        (B, V, 2, 2)."""
        c = self.config
        images, depths, other = self._pictures(frames)
        pad = lambda x, n: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])])
        chunk, valid = self.chunk(frames)
        lengths = self.lengths[self.task[frames]]
        out = {
            "images": images,
            "depth_images": other if other is not None else images[:, self.depth_view],
            "tokens": self.tokens[self.task[frames]][:, : lengths.max()],
            "lengths": lengths,
            "state": pad(self.statistics.normalize("state", self.state[frames]), c["state_dim"]),
            "actions": pad(self.statistics.normalize("actions", chunk), c["action_dim"]),
            "valid": valid,
        }
        if depths.shape[1]:
            most = self.settings["max_depth_m"]
            metres = depths.astype(np.float32) / 1000
            has = metres > 0
            far = np.float32(most)
            out["log_depth"] = np.log(np.where(has, np.minimum(metres, far), far))
            out["has_depth"] = has & (metres < most)
            out["depth_weight"] = (has if self.settings["no_depth"] == "ignore" else np.ones_like(has)).astype(np.float32)
        if self.pixel is not None:
            out["pixel"] = self._place(self.pixel[frames])
        return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in out.items()}

    def _place(self, pixel: np.ndarray) -> np.ndarray:
        """Fractions of the stored image to fractions of the model's square."""
        out = pixel.copy()
        for view, name in enumerate(self.image_features):
            height, width = self.features[name]["shape"][:2]
            w, h, left, top = fit(width, height, self.size)
            seen = (pixel[:, view] >= 0).all(-1)
            moved = (pixel[:, view] * (w, h) + (left, top)) / self.size
            out[:, view][seen] = moved[seen]
        return out

    def near_threshold(self, count: int = 256) -> np.ndarray | None:
        """The median depth in metres (M, s, s) of `count` frames: a pixel 20 mm nearer than it shows the arm or an object."""
        if not self.depth_features:
            return None
        if self._median is None:
            frames = self.train[np.linspace(0, len(self.train) - 1, min(count, len(self.train))).astype(int)]
            depths = self._pictures(frames)[1].astype(np.float32) / 1000
            depths[depths == 0] = self.settings["max_depth_m"]
            self._median = np.median(depths, axis=0)
        return self._median


def sampled(frames: np.ndarray, seed: int, stage: int, step: int, batch: int) -> np.ndarray:
    """The frames of one training step: every epoch is a permutation of its own, so that a step needs no state to resume."""
    first, n = step * batch, len(frames)
    picks = [_epoch(n, seed, stage, i // n)[i % n] for i in range(first, first + batch)]
    return frames[picks]


_epochs: OrderedDict = OrderedDict()


def _epoch(n: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    key = (n, seed, stage, epoch)
    if key not in _epochs:
        _epochs[key] = np.random.default_rng([seed, 1, stage, epoch]).permutation(n)
        while len(_epochs) > 2:
            _epochs.popitem(last=False)
    return _epochs[key]
