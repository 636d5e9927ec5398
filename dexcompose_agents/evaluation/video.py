"""A short video of one rollout per method, for the report: mp4 through ffmpeg, a GIF where there is no ffmpeg."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dexcompose_agents.evaluation.manifest import write_json
from dexcompose_agents.evaluation.protocol import make_worlds, outcome_of
from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_envs.faces import RENDER_FPS
from dexcompose_envs.files import atomic_path
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes

__all__ = ["Video", "VideoError", "load_videos", "record_video", "render_world", "save_videos", "write_video"]

VIDEO_FOLDER = "videos"
INDEX_FILE = "videos.json"
CAMERA = "overview"
CONTROL_RATE = RENDER_FPS
"""Control steps per second of simulated time."""
STRIDE = 2
"""Every second control step is a frame; playback is in real time."""
LAST_FRAME_SECONDS = 0.8
PICTURE = {"camera": CAMERA, "width": 480, "height": 360}
"""Small, since software rendering takes 0.1 to 0.2 s per picture."""

Frame = npt.NDArray[np.uint8]


class VideoError(RuntimeError):
    """A video cannot be made here (no renderer, no encoder); one line with the reason."""


@dataclass(frozen=True)
class Video:
    """A recorded rollout.

    Attributes:
        pair: "GraspBall-PushButton".
        method: Name of the composition method.
        file: File name inside the video folder.
        episode_seed: Seed of the rollout.
        outcome: How it ended.
    """

    pair: str
    method: str
    file: str
    episode_seed: int
    outcome: str


def _write_mp4(frames: Sequence[Frame], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    with atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            output_params=["-crf", "26", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame, dtype=np.uint8))
        writer.close()


def _write_gif(frames: Sequence[Frame], path: Path, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame).quantize(colors=96) for frame in frames]
    with atomic_path(path) as temporary:
        duration = round(1000.0 / fps)
        images[0].save(temporary, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=True)


def write_video(frames: Sequence[Frame], stem: Path, fps: float) -> Path:
    """Encode frames (height, width, 3) as ``stem.mp4``, or as ``stem.gif`` where ffmpeg is missing or fails.

    Returns:
        The path written.

    Raises:
        VideoError: If there is no frame, or neither encoder works.
    """
    if not frames:
        raise VideoError("no frames to encode")
    height, width = (size - size % 2 for size in frames[0].shape[:2])  # yuv420p needs even sizes
    frames = [frame[:height, :width] for frame in frames]
    stem.parent.mkdir(parents=True, exist_ok=True)
    try:
        path = stem.with_suffix(".mp4")
        _write_mp4(frames, path, fps)
        return path
    except (ImportError, OSError, RuntimeError):
        pass
    try:
        path = stem.with_suffix(".gif")
        _write_gif(frames, path, fps)
        return path
    except (ImportError, OSError) as error:
        raise VideoError(f"neither mp4 nor gif can be written: {error}") from None


class Film(Watcher):
    """Takes a picture of the first world at the start, after every ``stride`` steps and at the end of its episodes."""

    def __init__(self, venv: Any, stride: int = STRIDE) -> None:
        """A film of ``venv``, which renders."""
        self.frames: list[Frame] = []
        self._venv, self._stride = venv, stride

    def begin(self, worlds: npt.NDArray[np.int64], moment: Moment) -> None:
        """Picture of a start."""
        self.frames.append(render_world(self._venv))

    def step(self, moment: Moment) -> npt.NDArray[np.bool_]:
        """Picture of a step."""
        if moment.steps[0] % self._stride == 0 or moment.ended[0]:
            self.frames.append(render_world(self._venv))
        return moment.ended


def record_video(
    pair: str, method: CompositionMethod, episode: Episode, folder: Path, env_kwargs: dict[str, Any] | None = None
) -> Video:
    """Roll one episode of the evaluation out again in a single world and film it with the overview camera.

    Raises:
        VideoError: If there is no GL backend to render with, or no encoder.
    """
    try:
        venv = make_worlds(pair, 1, render_mode="rgb_array", **PICTURE, **(env_kwargs or {}))
    except (ImportError, RuntimeError, OSError) as error:
        raise VideoError(f"no environment to film: {_first_line(error)}") from None
    film = Film(venv)
    try:
        (rollout,) = run_episodes(venv, method, [episode], film)
    finally:
        venv.close()
    frames = film.frames
    fps = CONTROL_RATE / STRIDE
    frames.extend(frames[-1:] * round(LAST_FRAME_SECONDS * fps))
    path = write_video(frames, folder / VIDEO_FOLDER / f"{pair}_{method.name}", fps)
    return Video(pair, method.name, path.name, episode.seed, outcome_of(rollout))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def render_world(venv: Any) -> Frame:
    """A picture (height, width, 3) of the first world.

    Raises:
        VideoError: If there is no GL backend.
    """
    try:
        image = venv.render()
    except Exception as error:  # every GL backend fails in its own way: EGL, OSMesa, GLFW, missing libraries
        raise VideoError(f"no GL backend to render with ({_first_line(error)}); set MUJOCO_GL=egl or osmesa") from None
    image = image[0] if isinstance(image, (tuple, list)) else image
    if image is None:
        raise VideoError("the environment rendered nothing")
    image = np.asarray(image)
    return image[0] if image.ndim == 4 else image


def save_videos(folder: Path, videos: Sequence[Video], note: str | None) -> None:
    """Write the list of recorded videos, and why some are missing, beside them."""
    write_json(folder / VIDEO_FOLDER / INDEX_FILE, {"videos": [asdict(video) for video in videos], "note": note})


def load_videos(folder: Path) -> tuple[list[Video], str | None]:
    """The videos recorded in ``folder`` whose files are there, and the note about missing ones."""
    path = folder / VIDEO_FOLDER / INDEX_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        videos = [Video(**entry) for entry in content["videos"]]
        note = content["note"]
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, KeyError, TypeError):
        return [], f"{path.name} cannot be read"
    return [video for video in videos if (folder / VIDEO_FOLDER / video.file).is_file()], note
