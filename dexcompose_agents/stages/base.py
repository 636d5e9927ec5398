"""What a stage is: a skill or pair, settings, files that it reads, files that it writes, and how it is done.

A chain's folder is laid out like the package's own folders: `pretrained/` holds weights, `masks/` and `release_test/`,
`held_states/` the libraries, and besides there are `demos/` and `logs/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from tyro.conf import Positional, Suppress

from dexcompose_agents.artefacts.shipped import pretrained_folder
from dexcompose_agents.runtime.compute import PRESETS, Piece, physics_options
from dexcompose_agents.runtime.interrupts import saving_to
from dexcompose_agents.runtime.progress import Advance, progress_bar
from dexcompose_agents.stages.records import complete, content_hash, tidy
from dexcompose_agents.stages.settings import changed, on_device, options, that_matter, with_options
from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.demonstrations import dataset_id_of
from dexcompose_envs.errors import FileError
from dexcompose_envs.files import lock_folder
from dexcompose_envs.held_states import held_states_folder
from dexcompose_envs.physics import BACKENDS
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import make_retention, make_skill, parse_pair

if TYPE_CHECKING:
    Preset: TypeAlias = str
    Backend: TypeAlias = str
else:
    Preset, Backend = Literal[tuple(PRESETS)], Literal[tuple(BACKENDS)]

__all__ = ["Advance", "Backend", "Chain", "Needs", "Piece", "Preset", "Reads", "Stage", "content_hash"]

Needs = Literal["skill", "retention skill", "pair"]
CHECKS: Mapping[Needs, Any] = {"skill": make_skill, "retention skill": make_retention, "pair": parse_pair}
"""What refuses a wrong name."""


class Chain(Protocol):
    """What a stage takes from the chain that it belongs to, see `train_all.TrainAll`."""

    preset: Preset
    device: str | None
    out: Path
    settings: Mapping[str, Mapping[str, Any]]

    def names(self, needs: Needs) -> tuple[str, ...]:
        """Skills or pairs to make."""


class Reads(NamedTuple):
    """A file or folder that a stage reads: what it is, where, and the command that makes it."""

    what: str
    path: Path
    made_by: str


@dataclass(kw_only=True)
class Stage(ABC):
    """Base of the stages; the fields are the options of the stage's command."""

    KEY: ClassVar[str]
    """What it makes, e.g. "held states"."""
    NEEDS: ClassVar[Needs] = "skill"
    """Whose stage it is."""
    HIDDEN: ClassVar[frozenset[str]] = frozenset({"device"})
    """Settings that aren't options, because the stage has an option of its own for them."""
    SIMULATES: ClassVar[bool] = False
    """Whether the preset's physics decide its result, rather than a setting."""
    IN_CHAIN: ClassVar[bool] = True
    """Whether `train all` does it."""
    QUICK: ClassVar[bool] = False
    """Whether it simply is made again when something has changed, rather than refused."""

    name: Positional[str]
    """Skill or pair."""
    preset: Preset = "cpu"
    """Budget: cpu fits a laptop, fast and paper (as published) take a GPU, test only proves that it runs."""
    device: str | None = None
    """Device of networks and of physics on a GPU, e.g. cuda:1; by default the preset's."""
    minutes: float | None = None
    """Stop after so many minutes with everything saved; the same command goes on. By default no limit."""
    out: Path | None = None
    """Folder for what it makes, and for its checkpoints until then; by default runs/STAGE/NAME."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the preset's; nested ones are mappings."""
    chain: Suppress[Path | None] = None
    """Folder of the chain whose files are read where no others are given; None: what ships."""

    @classmethod
    def of_chain(cls, chain: Chain) -> Iterator[Stage]:
        """The stages of this kind of a chain; what a stage reads is there when the next one is asked for."""
        settings = chain.settings.get(cls.KEY.replace(" ", "_"), {})
        for name in chain.names(cls.NEEDS) if cls.IN_CHAIN else ():
            yield cls(name=name, preset=chain.preset, device=chain.device, settings=settings, chain=chain.out)

    @classmethod
    @abstractmethod
    def defaults(cls, preset: str, name: str | None = None) -> Any:
        """Settings (a dataclass) under a preset, for a skill or pair or for any."""

    @abstractmethod
    def reads(self) -> list[Reads]:
        """What it reads."""

    @abstractmethod
    def writes(self) -> dict[str, str]:
        """What it writes: file or folder, as named in its own folder -> where it lies in a chain's folder."""

    @abstractmethod
    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        """Writes all that into the folder ``work``, or goes on with what an interrupted call left there."""

    def tell(self) -> None:  # noqa: B027  (most have nothing to tell)
        """Prints what its command found out."""

    @property
    def title(self) -> str:
        """E.g. "policy GraspBall"."""
        return f"{self.KEY} {self.name}"

    @property
    def config(self) -> Any:
        """All settings."""
        return on_device(changed(self.defaults(self.preset, self.name), self.settings), self.device)

    @property
    def physics(self) -> dict[str, Any]:
        """Back end and device of an environment, where they aren't the default."""
        return physics_options(self.preset, self.device)

    @property
    def destination(self) -> Path:
        """What its own command writes: a folder as a rule."""
        return self.out or Path("runs") / self.KEY.replace(" ", "-") / self.name

    def places(self) -> tuple[Path, dict[str, Path]]:
        """The folder in which its own command works, and where each file goes that `writes` names."""
        return self.destination, {name: self.destination / name for name in self.writes()}

    @property
    def effort(self) -> float:
        """How long it takes, compared with others of its kind."""
        return 1.0

    def facts(self) -> dict[str, Any]:
        """Settings that decide the result, others than the learner's among them."""
        engine = {"backend": self.physics.get("backend", "mujoco")} if self.SIMULATES else {}
        return {**that_matter(self.config), **engine}

    def made_from(self) -> dict[str, Any]:
        """All that the result depends on, ready for JSON; a release of the package alone changes nothing.

        A wrong name or setting is a UsageError, a missing input a FileError.
        """
        CHECKS[self.NEEDS](self.name)
        for read in self.reads():
            if not read.path.exists():
                raise FileError(f"no {read.what} '{read.path}'; make it with: {read.made_by}")
        return {
            "settings": self.facts(),
            "data_version": DATA_VERSION,
            "model_hash": model_hash_of(self.name),
            "inputs": {read.what: content_hash(read.path) for read in self.reads()},
        }

    def run(self) -> Path:
        """Does the stage on its own, or goes on with it, see `records.complete`; this is the stage's command."""
        CHECKS[self.NEEDS](self.name)
        folder, places = self.places()
        with lock_folder(folder), saving_to(self.destination), progress_bar(self.title) as advance:
            _, unchanged = complete(self, folder, places, Piece(self.minutes), advance, again=self.QUICK)
            tidy(folder)
        if unchanged:
            print(f"{self.title}: unchanged")
        self.tell()
        return self.destination

    @classmethod
    def options(cls) -> Any:
        """Its settings as options of the command line."""
        return options({preset: cls.defaults(preset) for preset in PRESETS}, cls.HIDDEN)

    @classmethod
    def command(cls) -> Any:
        """The stage as tyro is to see it."""
        return with_options(cls, cls.options(), f"Name of a {cls.NEEDS}.")

    def file(self, given: Path | None, in_chain: str, otherwise: Path) -> Path:
        """Where an input is: where the user says, else in the chain's folder, else among what ships or was made."""
        return given or (self.chain / in_chain if self.chain else otherwise)

    def policy_of(self, skill: str, given: Path | None) -> Reads:
        name = f"{skill}.safetensors"
        path = self.file(given, f"pretrained/{name}", pretrained_folder() / name)
        return Reads(f"weights of {skill}", path, f"dexcompose train policy {skill}")

    def library_of(self, skill: str, given: Path | None) -> Reads:
        path = self.file(given, f"held_states/{skill}.npz", held_states_folder() / f"{skill}.npz")
        return Reads(f"held states of {skill}", path, f"dexcompose train held-states {skill}")

    def demonstrations_of(self, skill: str, given: Path | None) -> Reads:
        root = self.file(given, f"demos/{skill}", Path("runs/demos"))
        return Reads("demonstrations", root / dataset_id_of(skill), f"dexcompose demos {skill} --out {root}")
