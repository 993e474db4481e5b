"""Meta-World's tasks, their prompts, and their cameras drawn by MuJoCo on the processor (OSMesa)."""

import os

os.environ.setdefault("MUJOCO_GL", "osmesa")

import metaworld
import mujoco
import numpy as np
from metaworld.policies import ENV_POLICY_MAP

TASKS = {
    "reach-v3": "reach the goal",
    "push-v3": "push the puck to the goal",
    "drawer-open-v3": "open the drawer",
    "button-press-topdown-v3": "press the button",
    "window-open-v3": "open the window",
}
CAMERAS = ("corner2", "gripperPOV")
SIDE = 112
# Steps after which an episode is given up. Meta-World's own limit is 500; its experts need about 100.
LIMIT = 200


class World:
    """One task with goals of a seed. Meta-World mounts the first camera upside down; its pictures are turned. `draw` gives (view, SIDE, SIDE, 3) u8, `depth` the first camera's in metres."""

    def __init__(self, task: str, seed: int):
        benchmark = metaworld.MT1(task, seed=seed)
        self.env = benchmark.train_classes[task]()
        self.goals = benchmark.train_tasks
        self.expert = ENV_POLICY_MAP[task]()
        # Nearer to the workspace than Meta-World's own place for it.
        self.env.model.cam(CAMERAS[0]).pos[:] = (0.75, 0.075, 0.7)
        # The software renderer's time goes into antialiasing, shadows and reflections.
        self.env.model.vis.quality.offsamples = 0
        self.renderer = mujoco.Renderer(self.env.model, SIDE, SIDE)
        self.scene_flags = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)

    def reset(self, goal: int) -> np.ndarray:
        self.env.set_task(self.goals[goal % len(self.goals)])
        observation, _ = self.env.reset()
        return observation

    def step(self, action: np.ndarray) -> tuple:
        """Observation, and whether the task is done."""
        observation, _, _, _, info = self.env.step(np.clip(action, -1, 1).astype(np.float32))
        return observation, info["success"] > 0

    def _scene(self, camera: str) -> None:
        self.renderer.update_scene(self.env.data, camera=camera)
        for flag in self.scene_flags:
            self.renderer.scene.flags[flag] = 0

    def draw(self) -> list:
        images = []
        for camera in CAMERAS:
            self._scene(camera)
            image = self.renderer.render()
            images.append((image[::-1, ::-1] if camera == CAMERAS[0] else image).copy())
        return images

    def depth(self) -> np.ndarray:
        self.renderer.enable_depth_rendering()
        self._scene(CAMERAS[0])
        depth = self.renderer.render()[::-1, ::-1].copy()
        self.renderer.disable_depth_rendering()
        return depth


def state(observation: np.ndarray) -> np.ndarray:
    """Hand position in metres and the gripper's opening: what a robot knows of itself. The rest of the observation is hidden."""
    return observation[:4].astype(np.float32)
