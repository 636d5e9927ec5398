"""What ships is what the environments of this version need, and stays small."""

import json
import subprocess
from pathlib import Path

import pytest

import dexcompose_agents
from dexcompose_agents.artefacts.shipped import choose_mask
from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.attribution.selectors import Selection
from dexcompose_envs import PAIRS, RETENTION_SKILLS, SKILLS, FingerMask, parse_pair
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene import model_hash_of

ROOT = Path(__file__).parents[1]
PRETRAINED = Path(dexcompose_agents.__file__).parent / "pretrained"
WEIGHTS = sorted(PRETRAINED.glob("*.safetensors"))
MASKS = sorted((PRETRAINED / "masks").glob("*.json"))
MEGABYTE = 1_000_000
PAIR_NAMES = tuple("-".join(pair) for pair in PAIRS)


def kind_of(path):
    """Kind of a weight file by its name."""
    first = path.stem.split("-")[0]
    return {"residual": "residual_b", "stabiliser": "stabiliser"}.get(first, "diffusion_policy")


def test_every_skill_has_a_policy_and_every_pair_its_masks():
    assert {path.name for path in WEIGHTS} >= {f"{skill}.safetensors" for skill in SKILLS}
    assert {path.name for path in MASKS} >= {f"{name}{end}.json" for name in PAIR_NAMES for end in ("", "-heuristic")}


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_weights_belong_to_this_version(path):
    name = path.stem.removeprefix("residual-").removeprefix("stabiliser-")
    owner = {"pair" if "-" in name else "skill": name}
    _, manifest = load_weights(path, kind_of(path), model_hash=model_hash_of(name), **owner)
    assert isinstance(manifest["config"], dict) and manifest["config"]


@pytest.mark.parametrize("path", MASKS, ids=lambda path: path.stem)
def test_masks_are_selections_of_their_pair(path):
    selection = Selection.load(path)
    pair = selection.pair
    assert choose_mask(pair, path) == (selection.mask, selection.selector)
    assert pair in PAIR_NAMES
    assert path.stem in (pair, f"{pair}-{selection.selector}")
    assert selection.why
    assert selection.mask in FingerMask.candidates()
    scored = [FingerMask.parse(text) for text in selection.scores]
    assert selection.mask in scored
    json.dumps(dict(selection.scores), allow_nan=False)


def test_a_stabiliser_knows_the_shipped_masks_of_its_skill():
    for path in PRETRAINED.glob("stabiliser-*.safetensors"):
        _, manifest = load_weights(path, "stabiliser")
        pairs = [name for name in PAIR_NAMES if parse_pair(name)[0] == manifest["skill"]]
        assert {str(choose_mask(name)[0]) for name in pairs} <= set(manifest["masks"]), path.name


def test_a_residual_was_trained_with_the_default_mask_of_its_pair():
    for path in PRETRAINED.glob("residual-*.safetensors"):
        pair = path.stem.removeprefix("residual-")
        load_weights(path, "residual_b", pair=pair, mask=str(choose_mask(pair)[0]))


@pytest.mark.parametrize("skill", RETENTION_SKILLS)
def test_held_states_belong_to_this_version(skill):
    assert len(HeldStateLibrary.load(skill, model_hash=model_hash_of(skill))) == 2048


def test_the_repository_stays_small():
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if listed.returncode != 0 or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in paths if path.is_file()}
    assert sizes
    assert max(sizes.values()) <= 4 * MEGABYTE, max(sizes, key=lambda name: sizes[name])
    assert sum(sizes.values()) < 25 * MEGABYTE
