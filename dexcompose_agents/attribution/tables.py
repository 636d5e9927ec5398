"""The release test's result: one row per mask, its intervals, the CSV file and the heat map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dexcompose_agents.attribution.checked_csv import read_checked, write_checked
from dexcompose_agents.evaluation.statistics import Interval, wilson_interval
from dexcompose_envs.checks import real_number, whole_number
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import atomic_write
from dexcompose_envs.hand import FINGERS
from dexcompose_envs.ownership import FingerMask

COLUMNS = (
    "mask", "kept", "released", "P_ret", "P_ret_low", "P_ret_high", "P_clean", "P_clean_low", "P_clean_high",
    "slip", "n", "unstable",
)  # fmt: skip
COLOURS = 128
"""Of the heat map: as many as a chart needs, in a quarter of the bytes."""


@dataclass(frozen=True)
class MaskResult:
    """Release-test counts of one mask.

    Attributes:
        mask: The fingers that kept holding.
        retained: Rollouts in which the object was retained.
        clean: Rollouts in which every released finger let go.
        rollouts: Rollouts run, K.
        unstable: Rollouts whose world diverged; they count as neither retained nor clean.
        slip: Mean distance of the object from its hold target at the end, as a share of d_ret; a lost one counts 1.
    """

    mask: FingerMask
    retained: int
    clean: int
    rollouts: int
    unstable: int = 0
    slip: float = 0.0

    def __post_init__(self) -> None:
        """Refuses counts that don't fit each other."""
        whole_number(f"{self.mask}: rollouts", self.rollouts)
        for name in ("retained", "clean", "unstable"):
            whole_number(f"{self.mask}: {name}", getattr(self, name), 0, self.rollouts)
        real_number(f"{self.mask}: slip", self.slip, 0.0, 1.0)

    @property
    def p_ret(self) -> float:
        """P_ret(m): fraction of rollouts with the object retained."""
        return self.retained / self.rollouts

    @property
    def p_clean(self) -> float:
        """P_clean(m): fraction of rollouts with a clean release."""
        return self.clean / self.rollouts

    @property
    def p_ret_interval(self) -> Interval:
        """95 % Wilson interval of P_ret."""
        return wilson_interval(self.retained, self.rollouts)

    @property
    def p_clean_interval(self) -> Interval:
        """95 % Wilson interval of P_clean."""
        return wilson_interval(self.clean, self.rollouts)


def place_of(mask: FingerMask) -> int:
    """Place in `FingerMask.candidates()`; a mask that isn't there comes last."""
    candidates = FingerMask.candidates()
    return candidates.index(mask) if mask in candidates else len(candidates)


def write_csv(path: str | Path, results: Sequence[MaskResult]) -> None:
    """Writes the table in one step; columns `COLUMNS`, probabilities as fractions."""
    rows = []
    for result in results:
        values = [result.p_ret, *result.p_ret_interval, result.p_clean, *result.p_clean_interval, result.slip]
        released = result.mask.num_released
        numbers = [len(FINGERS) - released, released, *(f"{value:.6f}" for value in values)]
        rows.append([result.mask, *numbers, result.rollouts, result.unstable])
    write_checked(path, COLUMNS, rows)


def read_csv(path: str | Path) -> list[MaskResult]:
    """Reads a table back; the intervals are recomputed from the counts.

    Raises:
        FileError: On missing columns, an unknown mask, numbers that don't fit, or a table that was edited or cut off,
            naming file and line.
    """
    return read_checked(path, COLUMNS, _result, "release-test table")


def _result(row: dict[str, str]) -> MaskResult:
    count = int(row["n"])
    retained, clean = (round(float(row[name]) * count) for name in ("P_ret", "P_clean"))
    return MaskResult(FingerMask.parse(row["mask"]), retained, clean, count, int(row["unstable"]), float(row["slip"]))


def draw_heat_map(path: str | Path, results: Sequence[MaskResult], title: str = "Release test") -> None:
    """Draws the table: kept fingers as dots, P_ret and P_clean as shaded cells with their numbers (PNG, about 60 kB).

    Rows go from many kept fingers to few, and within that from the highest P_ret down. The colour map, cividis, reads
    the same with a colour-vision deficiency and in grey.

    Raises:
        UsageError: Without rows.
    """
    if not results:
        raise UsageError("the release-test table is empty, nothing to draw")
    from matplotlib.figure import Figure
    from PIL import Image

    rows = sorted(results, key=lambda r: (r.mask.num_released, -r.p_ret, -r.p_clean, str(r.mask)))
    order = ("TH", *[finger for finger in FINGERS if finger != "TH"])
    figure = Figure(figsize=(4.6, 0.235 * len(rows) + 1.0), dpi=110, layout="constrained")
    dots, cells = figure.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.25])
    for y, row in enumerate(rows):
        shades = ["#1a1a1a" if finger in row.mask.preserved else "white" for finger in order]
        dots.scatter(range(5), [y] * 5, s=34, c=shades, edgecolors="#8a8a8a")
    dots.set(xlim=(-0.6, 4.6), yticks=[])
    dots.set_xticks(range(5), order)
    dots.set_title("kept fingers", fontsize=8)
    dots.spines[:].set_visible(False)
    values = np.array([[row.p_ret, row.p_clean] for row in rows])
    image = cells.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, x in np.ndindex(values.shape):
        shade = "black" if values[y, x] > 0.55 else "white"
        cells.text(x, y, f"{100 * values[y, x]:.0f}", ha="center", va="center", fontsize=8, color=shade)
    cells.set_xticks([0, 1], ["retained %", "clean %"])
    counts = [row.rollouts for row in rows]
    rollouts = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    cells.set_title(f"{rollouts} rollouts a mask", fontsize=8)
    for axis, colour in ((dots, "#c0504d"), (cells, "white")):
        axis.tick_params(labelsize=8, length=0)
        axis.xaxis.tick_top()
        for border in np.flatnonzero(np.diff([row.mask.num_released for row in rows])) + 0.5:
            axis.axhline(border, color=colour, linewidth=1.0, alpha=0.6)
    bar = figure.colorbar(image, ax=cells, fraction=0.06, pad=0.03, ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    picture, small = io.BytesIO(), io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    chart = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    chart.save(small, "PNG", optimize=True)
    atomic_write(path, small.getvalue())
