"""A stand-in for the vector environment: the object falls when too few fingers hold, an open finger has no contact."""

from types import SimpleNamespace

import numpy as np
import pytest

from dexcompose_agents.attribution.tables import MaskResult, write_csv
from dexcompose_envs import hand
from dexcompose_envs.demonstrations import record
from dexcompose_envs.held_states import COLUMNS, HeldStateLibrary, Manifest
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.skills import make_expert

TERMS = {"palm_offset": slice(0, 3), "finger_contact": slice(3, 8)}


class FakeWorlds:
    """Held while the thumb and `needed` other fingers are more closed than half; state number i needs 1 + i % 2.

    A finger's contact force is 2 N while it is less than half open, then 0; the ring finger keeps 0.5 N in every third
    state. As in the real environment, a lost object ends the episode, and an ended world must be reset.
    """

    made: list["FakeWorlds"] = []  # noqa: RUF012

    def __init__(self, env_id, num_envs, held_states, **kwargs):
        self.env_id, self.num_envs, self.library, self.kwargs = env_id, num_envs, held_states, kwargs
        self.layout = {"context": TERMS}
        self.actions, self.closed, self.resets = [], False, 0
        self.index, self.seeds = np.zeros((2, num_envs), int)
        self.lost = np.zeros(num_envs, bool)
        self.ended = np.zeros(num_envs, bool)
        FakeWorlds.made.append(self)

    @property
    def unwrapped(self):
        return self

    def reset(self, seed=None, options=None):
        seen = {"context": np.zeros((self.num_envs, 8), np.float32)}
        mask = options.get("reset_mask", np.ones(self.num_envs, bool))
        self.ended = self.ended & ~mask
        if "state" in options:
            assert options["state"].shape == (self.num_envs, 1)
            self.resets += 1
            return seen, {}
        assert options["start"] == "held" and len(seed) == self.num_envs
        self.seeds = np.where(mask, seed, self.seeds)
        self.index = np.where(mask, options["held_index"], self.index)
        self.lost = self.lost & ~mask
        return seen, {}

    def get_state(self):
        return np.zeros((self.num_envs, 1))

    def step(self, action):
        assert not self.ended.any(), "an ended world was stepped"
        assert action.dtype == np.float32 and np.abs(action).max() <= 1.0
        self.actions.append(action)
        target = hand.denormalize(action)[:, hand.NUM_WRIST :]
        reference = self.library.reference[self.index]
        way = np.abs(hand.OPEN_FINGERS - reference)
        opened = np.abs(target - reference) / np.maximum(way, 1e-9)
        spans = [slice(s.start - 6, s.stop - 6) for s in map(hand.finger_slice, hand.FINGERS)]
        closed = np.stack([opened[:, span].max(axis=1) < 0.5 for span in spans], axis=1)
        self.lost |= ~(closed[:, 4] & (closed[:, :4].sum(axis=1) >= 1 + self.index % 2))
        context = np.zeros((self.num_envs, 8), np.float32)
        context[:, 0] = np.where(self.lost, 1.0, 0.01)  # 10 x m: 10 cm or 1 mm
        context[:, 3:] = 0.1 * np.where(closed, 2.0, 0.0)
        context[:, 5] = np.maximum(context[:, 5], np.where(self.index % 3 == 0, 0.05, 0.0))
        self.ended = self.lost.copy()
        info = {"task_a_held": ~self.lost, "unstable": np.zeros(self.num_envs, bool)}
        return {"context": context}, None, self.lost.copy(), np.zeros(self.num_envs, bool), info

    def close(self):
        self.closed = True


def make_library(count=12):
    rng = np.random.default_rng(0)
    columns = {name: np.zeros((count, width)) for name, width in COLUMNS.items() if width}
    columns["object_qpos"][:, 3] = 1.0
    columns["control"][:, :6] = [0.1, -0.1, 0.3, 0.0, 0.2, -0.3]
    columns["reference"] = np.clip(
        hand.OPEN_FINGERS + rng.uniform(0.3, 0.6, (count, 22)), hand.ACTION_LOW[6:], hand.ACTION_HIGH[6:]
    )
    thumb_j0 = hand.ACTION_NAMES.index("THJ0") - 6
    columns["reference"][:, thumb_j0] = -0.5  # its range ends at 0, where it opens to
    columns["reference"][:, thumb_j0 - 1] = 0.1
    return HeldStateLibrary.from_columns(Manifest("GraspBall", "model", "policy"), columns)


@pytest.fixture
def fake():
    """The library, the fake `make_vec` and a few masks."""
    FakeWorlds.made.clear()
    masks = [FingerMask.parse(text) for text in ("TH+FF+MF+RF", "TH+FF+MF", "TH+FF", "TH", "FF+MF+RF+LF")]
    return SimpleNamespace(library=make_library(), make_vec=FakeWorlds, masks=masks, made=FakeWorlds.made)


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory):
    """A folder with two demonstrations of PushButton."""
    root = tmp_path_factory.mktemp("demonstrations")
    record("PushButton", make_expert("PushButton"), episodes=2, num_envs=2, root=root, env_kwargs={"num_threads": 1})
    return root


@pytest.fixture
def select_mask_files(demonstrations, tmp_path):
    """What `select-mask` reads, by option: a release test that is complete, and demonstrations."""
    table = tmp_path / "release_test.csv"
    write_csv(table, [MaskResult(mask, 90 - i, 95, 100) for i, mask in enumerate(FingerMask.candidates())])
    return {"table": table, "demos": demonstrations}
