"""A short video of one rollout per method, for the report: mp4 through ffmpeg, a GIF where there is no ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dexcompose_agents.evaluation.protocol import make_worlds, outcome_of
from dexcompose_agents.evaluation.tables import OUTCOME_LABELS
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_agents.runtime.provenance import read_json, write_json
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs.episodes.phases import PHASES
from dexcompose_envs.errors import FileError, MachineError, UsageError
from dexcompose_envs.faces import RENDER_FPS
from dexcompose_envs.files import atomic_path
from dexcompose_envs.rollouts import Episode, Moment, run_episodes

VIDEO_FOLDER = "videos"
INDEX_FILE = "videos.json"
MEDIA_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}
CONTROL_RATE = RENDER_FPS
"""Control steps per second of simulated time."""
STRIDE = 2
"""Every second control step is a frame; playback is in real time."""
LAST_FRAME_SECONDS = 1.2
PICTURE = {"camera": "hand", "width": 480, "height": 360}
"""Small, since software rendering takes 0.1 to 0.2 s per picture."""
STRIP_HEIGHT = 26

Frame = npt.NDArray[np.uint8]


class VideoError(MachineError):
    """A video cannot be encoded here; one line with the reason."""


class Video(NamedTuple):
    """A recorded rollout: whose, its file's name in the video folder, the rollout's seed, and how it ended."""

    pair: str
    method: str
    file: str
    episode_seed: int
    outcome: str


def check_video_path(path: Path) -> Path:
    """The path, if its name says which kind of video it is to be.

    Raises:
        UsageError: If it ends neither in .mp4 nor in .gif.
    """
    if path.suffix.lower() not in MEDIA_TYPES:
        raise UsageError(f"video '{path}' must end in {' or '.join(MEDIA_TYPES)}")
    return path


def write_video(frames: Sequence[Frame], path: Path, fps: float) -> None:
    """Encode frames (height, width, 3) as the kind of video that the file's name says.

    Raises:
        UsageError: If the name ends neither in .mp4 nor in .gif.
        VideoError: If there is no frame, or no encoder.
    """
    import imageio.v3 as iio

    kind = check_video_path(path).suffix.lower()
    if not frames:
        raise VideoError("no frames to encode")
    options: dict[str, Any] = {"plugin": "pillow", "duration": round(1000.0 / fps), "loop": 0}
    if kind == ".mp4":
        height, width = (size - size % 2 for size in frames[0].shape[:2])  # yuv420p needs even sizes
        frames = [frame[:height, :width] for frame in frames]
        options = {"plugin": "FFMPEG", "fps": fps, "codec": "libx264", "quality": None, "macro_block_size": 2}
        options["output_params"] = ["-crf", "26", "-preset", "veryfast", "-movflags", "+faststart"]
    with atomic_path(path) as temporary:
        try:
            iio.imwrite(temporary, np.stack(frames), extension=kind, **options)
        except (ImportError, RuntimeError) as error:  # imageio's words for a missing or failing ffmpeg
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise VideoError(f"{kind[1:]} cannot be encoded here: {reason}") from None


class Film(UntilDecided):
    """Pictures of the first world: at the start, after every ``STRIDE`` steps and at the end of its episode.

    Attributes:
        shots: Phase (index into ``PHASES``) and picture.
    """

    def __init__(self, venv: Any) -> None:
        self.shots: list[tuple[int, Frame]] = []
        self._venv, self._phase = venv, venv.unwrapped.layout["context"]["phase"]

    def begin(self, worlds: npt.NDArray[np.int64], moment: Moment) -> None:
        """Picture of a start."""
        self._shoot(moment)

    def step(self, moment: Moment) -> npt.NDArray[np.bool_]:
        """Picture of a step; the last is taken at once, since the queue lets the world go on."""
        over = super().step(moment)
        if moment.steps[0] % STRIDE == 0 or over[0]:
            self._shoot(moment)
        return over

    def _shoot(self, moment: Moment) -> None:
        phase = int(np.argmax(moment.obs["context"][0, self._phase]))
        self.shots.append((phase, self._venv.render()[0]))


def record_video(pair: str, method: CompositionMethod, episode: Episode, folder: Path) -> Video:
    """Roll one episode of the evaluation out again in a single world and film it from close to the hand.

    The phase is written into the picture, and at the end the outcome.

    Raises:
        MachineError: If there is nothing to render with, or no encoder.
    """
    venv = make_worlds(pair, 1, render_mode="rgb_array", **PICTURE)
    film = Film(venv)
    with closing(venv), one_thread():
        (rollout,) = run_episodes(venv, method, [episode], film)
    fps, outcome = CONTROL_RATE / STRIDE, outcome_of(rollout)
    frames = [_captioned(picture, phase) for phase, picture in film.shots]
    ended_in = film.shots[-2][0]  # the last picture already shows the phase of an action that nobody took
    frames += [_captioned(film.shots[-1][1], ended_in, outcome)] * round(LAST_FRAME_SECONDS * fps)
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in f"{pair}_{method.name}")
    path = folder / VIDEO_FOLDER / f"{name}.mp4"
    try:
        write_video(frames, path, fps)
    except VideoError:
        path = path.with_name(f"{name}.gif")
        write_video(frames, path, fps)
    return Video(pair, method.name, path.name, episode.seed, outcome)


def _captioned(frame: Frame, phase: int, outcome: str | None = None) -> Frame:
    """The picture with a strip on top that says the phase, and how the episode ended."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, 0, image.width, STRIP_HEIGHT), fill=(20, 23, 26, 190))
    font = ImageFont.load_default(14)
    x = 10.0
    for index, name in enumerate(PHASES):
        draw.text((x, 5), name, font=font, fill="white" if index == phase else (150, 156, 162))
        width = draw.textlength(name, font=font)
        if index == phase:
            draw.line((x, STRIP_HEIGHT - 3, x + width, STRIP_HEIGHT - 3), fill="white", width=2)
        x += width + 14
    if outcome is not None:
        fill = (79, 208, 169) if outcome == "success" else (255, 170, 90)
        label = OUTCOME_LABELS.get(outcome, outcome)
        draw.text((image.width - 10 - draw.textlength(label, font=font), 5), label, font=font, fill=fill)
    return np.asarray(image)


def save_videos(folder: Path, videos: Sequence[Video], note: str | None) -> None:
    """Write the list of recorded videos, and why some are missing, beside them."""
    write_json(folder / VIDEO_FOLDER / INDEX_FILE, {"videos": [video._asdict() for video in videos], "note": note})


def load_videos(folder: Path) -> tuple[list[Video], str | None]:
    """The videos recorded in ``folder`` whose files are there, and the note about missing ones."""
    path = folder / VIDEO_FOLDER / INDEX_FILE
    if not path.exists():
        return [], None
    try:
        content = read_json(path)
        videos, note = [Video(**entry) for entry in content["videos"]], content["note"]
        if not all(isinstance(text, str) for video in videos for text in video[:3]):
            raise TypeError
    except (FileError, KeyError, TypeError):
        return [], f"{path.name} cannot be read"
    # Only names of videos in the folder: an index can't make the report embed any other file of this machine.
    there = {file.name for file in path.parent.iterdir() if file.suffix in MEDIA_TYPES and file.is_file()}
    return [video for video in videos if video.file in there], note
