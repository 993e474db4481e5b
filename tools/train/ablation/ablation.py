"""Trains arms that differ in their depth branch, evaluates each, and writes a table: `ablation.py OUTPUT`. See README.md."""

import argparse
import json
import math
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1]
SCENE = TOOLS.parent / "runtime/src/scene/scene.toml"

FLOW, DEPTH = "flow = 1.0, grounding = 0.1", "flow = 1.0, grounding = 0.1, depth_l1 = 1.0"
# Of each arm: what it begins from, its losses, and what is frozen.
ARMS = {
    "full": ("depth", DEPTH, []),
    "no-depth-loss": ("start", FLOW, []),
    "no-pretraining": ("start", DEPTH, []),
    "frozen": ("depth", FLOW, ["depth_*", "joint_model.mixtures.depth.*"]),
    "no-branch": ("start-without", FLOW, []),
}
# Student's t at 97.5 % by degrees of freedom, from 1.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def scene_text(name: str) -> str:
    """The built-in scene, changed to `heights` or `plain`, with reaches and the base camera alone."""
    lines, out, section = SCENE.read_text().splitlines(), [], ""
    for line in lines:
        if line.startswith("["):
            section = line
        key = line.split("=")[0].strip()
        if section == "[[objects]]" and key in ("pedestal", "random_size"):
            color = "color = [0.62, 0.52, 0.40]"
            line = {
                ("heights", "pedestal"): f"pedestal = {{ probability = 1.0, height_m = [0.0, 0.15], {color} }}",
                ("heights", "random_size"): "random_size = [0.6, 1.25]",
            }.get((name, key), "")
        if section == "[[cameras]]" and key in ("random_position_mm", "random_turn_deg"):
            heights = {"random_position_mm": 50.0, "random_turn_deg": 5.0}
            line = f"{key} = {heights[key] if name == 'heights' else 0.0}"
        out.append(line)
    text = "\n".join(out) + "\n"
    head, *tasks = text.split("[[tasks]]")
    reach = [task.split("# A camera looks")[0] for task in tasks if 'kind = "reach"' in task]
    cameras = "[[cameras]]".join(text[text.index("# A camera looks"):].split("[[cameras]]")[:2])  # the base camera
    return head + "".join(f"[[tasks]]{task}" for task in reach) + cameras


def robot_text(scene: Path) -> str:
    return f"""[model]
path = "model"
prompt = "reach for the red block"
[chunks]
policy = {{ kind = "ensemble", decay = 0.01 }}
[link]
device = "simulated"
[scene]
file = {json.dumps(str(scene))}
[[camera]]
view = "base"
source = {{ kind = "scene", rate_hz = 10.0 }}
"""


class Ablation:
    def __init__(self, arguments):
        self.a, self.out = arguments, arguments.output.resolve()

    def run(self, command: list, log: Path) -> None:
        """Runs a command; its output goes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            done = subprocess.run([str(c) for c in command], stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}; see {log}")

    def all(self, jobs: list) -> None:
        """Runs the jobs, `--jobs` of them at once."""
        with ThreadPoolExecutor(self.a.jobs) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def data(self, scene: str) -> None:
        folder = self.out / scene
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scene.toml").write_text(scene_text(scene))
        (folder / "robot.toml").write_text(robot_text(folder / "scene.toml"))
        for name, episodes, seed in (("all", self.a.episodes_of_depth, 1), ("labelled", self.a.labelled // 4 + 20, 2)):
            if not (folder / name).exists():
                self.run([TOOLS / "fathom-dataset", "demonstrate", "--scene", folder / "scene.toml", "--episodes", episodes,
                          "--rate", 5, "--seed", seed, "--output", folder / name], folder / f"{name}.log")

    def train(self, scene: str, name: str, config: str, *settings: str, data: str) -> None:
        run = self.out / scene / name
        if (run / "done").exists():
            return
        options = [part for setting in settings for part in ("--set", setting)]
        self.run([TOOLS / "fathom-train", HERE / config, "--data", self.out / scene / data, "--output", run, *options], Path(f"{run}.log"))
        (run / "checkpoint.pt").unlink(missing_ok=True)
        (run / "done").touch()

    def starts(self, scene: str) -> list:
        wider = ["model.depth=false", "model.vision.mlp=1024", "model.vlm.mlp=1100"]
        no_depth, steps = ["data.depth={}"], f"stage.0.steps={self.a.start_steps}"
        return [
            lambda: (self.train(scene, "start", "start.toml", steps, data="all"), self.train(
                scene, "depth", "continue.toml", f"init={json.dumps(str(self.out / scene / 'start/model'))}",
                'stage.0.name="depth"', steps, "stage.0.batch=32", "stage.0.lr=1.5e-3",
                "stage.0.losses={ depth_l1 = 1.0 }", 'stage.0.train=["depth_*", "joint_model.mixtures.depth.*"]', data="all")),
            lambda: self.train(scene, "start-without", "start.toml", steps, *wider, *no_depth, data="all"),
        ]

    def arm(self, scene: str, arm: str, seed: int) -> None:
        begin, losses, freeze = ARMS[arm]
        name, folder = f"{arm}-{seed}", self.out / scene
        settings = [f"init={json.dumps(str(folder / begin / 'model'))}", f"seed={seed}", f"data.max_frames={self.a.labelled}",
                    f"stage.0.losses={{ {losses} }}", f"stage.0.freeze={json.dumps(freeze)}", f"stage.0.steps={self.a.steps}",
                    "data.validation_episodes=10"]
        if arm == "no-branch":
            settings.append("data.depth={}")
        self.train(scene, name, "continue.toml", *settings, data="labelled")
        if not (folder / f"{name}.json").exists():
            self.run([TOOLS / "fathom-eval", "run", "--software", "--threads", 1, "--config", folder / "robot.toml", "--model", folder / name / "model",
                      "--episodes", self.a.episodes, "--seconds", 6, "--json", folder / f"{name}.json"], folder / f"{name}-eval.log")

    def table(self) -> str:
        out = []
        for scene in self.a.scene:
            found = {arm: [self.figures(scene, arm, seed) for seed in range(self.a.seeds)] for arm in ARMS}
            out += [f"\n`{scene}`: {self.a.seeds} seeds of {self.a.episodes} episodes each, {self.a.labelled} labelled frames, "
                    f"{self.a.steps} steps of 16\n", "| arm | parameters | success % | of full | along mm | across mm |", "|---|---|---|---|---|---|"]
            for arm, rows in found.items():
                success = [row["success"] for row in rows]
                apart = [a - b for a, b in zip(success, [row["success"] for row in found["full"]], strict=True)]
                distance = " | ".join(f"{statistics.mean(row[part] for row in rows):.1f}" for part in ("along", "across"))
                out.append(f"| `{arm}` | {rows[0]['parameters'] / 1e6:.2f} M | {interval(success)} | {'' if arm == 'full' else interval(apart)} | {distance} |")
        return "\n".join(out).strip() + "\n"

    def figures(self, scene: str, arm: str, seed: int) -> dict:
        """Success in per cent, the medians of the errors along and across the ray in mm, and the model's parameters."""
        folder = self.out / scene
        trials = json.loads((folder / f"{arm}-{seed}.json").read_text())["episodes"]
        rays = [trial["ray_m"] for trial in trials if trial["ray_m"]]
        with open(folder / f"{arm}-{seed}/model/model.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        parameters = sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
        return {"success": 100 * sum(trial["success"] for trial in trials) / len(trials), "parameters": parameters,
                "along": 1e3 * statistics.median(ray[0] for ray in rays), "across": 1e3 * statistics.median(ray[1] for ray in rays)}


def interval(values: list[float]) -> str:
    """Mean and Student's interval at 95 % over the seeds."""
    mean = statistics.mean(values)
    if len(values) < 2 or len(values) - 2 >= len(T):
        return f"{mean:.1f}"
    half = T[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(prog="ablation", description="Does depth help? Arms that differ in their depth branch alone.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labelled", type=int, default=3000, help="frames with action labels")
    parser.add_argument("--steps", type=int, default=2500, help="steps of 16 of an arm's training")
    parser.add_argument("--start-steps", type=int, default=5000, help="steps of 32 of a start, and of the depth branch's pretraining")
    parser.add_argument("--episodes", type=int, default=100, help="episodes of an evaluation")
    parser.add_argument("--episodes-of-depth", type=int, default=4000, help="episodes of the data set without labels")
    parser.add_argument("--scene", choices=("heights", "plain"), action="append", help="default: both")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    a = parser.parse_args()
    a.scene = a.scene or ["heights", "plain"]
    ablation = Ablation(a)
    for scene in a.scene:
        ablation.data(scene)
    ablation.all([start for scene in a.scene for start in ablation.starts(scene)])
    ablation.all([lambda s=scene, m=arm, n=seed: ablation.arm(s, m, n) for scene in a.scene for seed in range(a.seeds) for arm in ARMS])
    table = ablation.table()
    (ablation.out / "table.md").write_text(table)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
