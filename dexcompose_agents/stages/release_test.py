"""The release test of a retention skill (Eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexcompose_agents.stages.base import Advance, Backend, Piece, Reads, Stage

if TYPE_CHECKING:
    from dexcompose_agents.attribution.release_test import ReleaseTestConfig


@dataclass(kw_only=True)
class ReleaseTest(Stage):
    """Measure for every finger mask how well a held object stays when the other fingers are released (Eq. 5)."""

    KEY = "release test"
    NEEDS = "retention skill"
    SIMULATES = True

    data: Path | None = None
    """Held states; by default the shipped ones."""
    backend: Backend | None = None
    """Physics: mujoco on the CPU, warp on a GPU; by default the preset's."""
    num_envs: int | None = None
    """Worlds stepped together; does not change the result. By default 64, 1024 on a GPU."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> ReleaseTestConfig:
        from dexcompose_agents.attribution.release_test import ReleaseTestConfig

        return ReleaseTestConfig(rollouts=1, steps=20) if preset == "test" else ReleaseTestConfig()

    @property
    def physics(self) -> dict[str, Any]:
        return super().physics if self.backend is None else {"backend": self.backend, "device": self.device}

    def reads(self) -> list[Reads]:
        return [self.library_of(self.name, self.data)]

    def writes(self) -> dict[str, str]:
        return {
            f"release_test.{kind}": f"pretrained/release_test/{self.name}.{kind}" for kind in ("csv", "png", "json")
        }

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.attribution.release_test import run_release_test
        from dexcompose_envs.held_states import HeldStateLibrary

        (library,) = self.reads()
        run_release_test(
            self.name, self.config, library=HeldStateLibrary.load(library.path), out=work, env_kwargs=self.physics,
            num_envs=self.num_envs or (1024 if self.physics else 64), progress=piece.watch(advance),
        )  # fmt: skip

    def tell(self) -> None:
        from dexcompose_agents.attribution.tables import read_csv

        results = read_csv(self.destination / "release_test.csv")
        for row in sorted(results, key=lambda row: -row.p_ret):
            print(f"{row.mask!s:16s} retained {100 * row.p_ret:5.1f} %   clean {100 * row.p_clean:5.1f} %")
