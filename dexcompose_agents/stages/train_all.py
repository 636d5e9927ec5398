"""The whole chain: demonstrations, base policies, held states, release tests, masks, stabilisers, residuals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dexcompose_agents.artefacts.shipped import SUMMARY_FILE
from dexcompose_agents.runtime.interrupts import saving_to
from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.runtime.provenance import write_json
from dexcompose_agents.runtime.side_by_side import one_per_core
from dexcompose_agents.stages import STAGES
from dexcompose_agents.stages.base import Needs, Piece, Preset, Stage
from dexcompose_agents.stages.parallel import complete_all
from dexcompose_agents.stages.records import complete, done_already, stored, tidy
from dexcompose_agents.stages.settings import typed_dict, with_options
from dexcompose_envs import __version__, pair_names, parse_pair, skill_names
from dexcompose_envs.checks import whole_number
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import lock_folder


@dataclass(kw_only=True)
class TrainAll:
    """Train everything from demonstrations up; every stage that is done and unchanged is skipped."""

    preset: Preset = "cpu"
    """Budget: cpu takes 2 cores 40 minutes for two pairs, fast and paper (as published) a GPU; test proves it runs."""
    device: str | None = None
    """Device of everything that a GPU can do, e.g. cuda:1; by default the preset's."""
    minutes: float | None = None
    """Stop after so many minutes with everything saved; the same command goes on. By default no limit."""
    out: Path = Path("runs/all")
    """Folder for everything."""
    jobs: int | None = None
    """Stages of one kind at a time, each on its share of the cores; by default one per core under cpu, else 1."""
    only: tuple[str, ...] = ()
    """Skills and pairs to make; a skill alone stops short of masks and residuals. By default every one."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of the stages that differ from the preset's, by stage."""

    def names(self, needs: Needs) -> tuple[str, ...]:
        """Skills, retention skills or pairs to make, in their fixed order."""
        pairs = tuple(pair for pair in pair_names() if not self.only or pair in self.only)
        if needs == "pair":
            return pairs
        wanted = {skill for pair in pairs for skill in parse_pair(pair)} | set(self.only)
        known = skill_names("retention" if needs == "retention skill" else None)
        return tuple(skill for skill in known if not self.only or skill in wanted)

    def run(self) -> Path:
        """Makes what is missing or was made from something else, and goes on with what was interrupted.

        Raises:
            UsageError: If the folder belongs to another preset, or a name is unknown.
            FileError: If a file was changed since the chain wrote it.
        """
        piece, every = Piece(self.minutes), (*skill_names(), *pair_names())
        if unknown := [name for name in self.only if name not in every]:
            raise UsageError(f"unknown skill or pair '{unknown[0]}'; expected one of {', '.join(every)}")
        with lock_folder(self.out), saving_to(self.out):
            before = stored(self.out / SUMMARY_FILE)
            if before.get("preset", self.preset) != self.preset:
                was = f"'{self.out}' was made with preset '{before['preset']}', now '{self.preset}'"
                raise UsageError(f"{was}; choose another folder")
            rows = {row["stage"]: row for row in before.get("stages", [])}
            for entry in STAGES.values():
                kind = list(resolve_name(entry).of_chain(self))
                for stage, record, unchanged in self._complete(kind, piece):
                    done = "unchanged" if unchanged else f"done in {record['seconds']:8.1f} s"
                    print(f"{stage.title:36s} {done}", flush=True)
                    rows[stage.title] = {key: record[key] for key in ("stage", "seconds", "machine", "versions")}
                    self._summarise(rows)
            tidy(self.out)
        return self.out

    def _complete(self, stages: list[Stage], piece: Piece) -> Iterator[tuple[Stage, dict[str, Any], bool]]:
        """Stages of one kind with their records, and whether there was nothing to do."""
        places = {stage.title: {name: self.out / place for name, place in stage.writes().items()} for stage in stages}
        todo = stages
        jobs = one_per_core(self.preset == "cpu") if self.jobs is None else whole_number("jobs", self.jobs)
        if jobs > 1:
            done = [(stage, done_already(stage, self.out, places[stage.title])) for stage in stages]
            yield from ((stage, record, True) for stage, record in done if record is not None)
            left = (stage for stage, record in done if record is None)
            todo = sorted(left, key=lambda stage: -stage.effort)  # the longest first, or one is left over at the end
        if jobs > 1 and len(todo) > 1:
            yield from ((stage, record, False) for stage, record in complete_all(todo, self.out, piece, jobs))
            return
        for stage in todo:
            with progress_bar(stage.title) as advance:
                yield stage, *complete(stage, self.out, places[stage.title], piece, advance, again=True)

    def _summarise(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes what the stages took; several at a time take less than their sum."""
        seconds = round(sum(row["seconds"] for row in rows.values()), 2)
        about = {"preset": self.preset, "env_version": __version__, "seconds": seconds}
        write_json(self.out / SUMMARY_FILE, about | {"stages": list(rows.values())})

    @classmethod
    def command(cls) -> Any:
        """The chain as tyro is to see it: with the options of each stage under its name."""
        stages = [stage for stage in map(resolve_name, STAGES.values()) if stage.IN_CHAIN]
        return with_options(
            cls, typed_dict("Settings", {stage.KEY.replace(" ", "_"): stage.options() for stage in stages})
        )
