"""What ships is what the environments of this version need, and stays small."""

import json
import subprocess
from pathlib import Path

import pytest

import dexcompose_agents
from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.attribution import Selection
from dexcompose_envs import PAIRS, RETENTION_SKILLS, SKILLS, FingerMask, __version__, parse_pair
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene import build_scene

ROOT = Path(__file__).parents[1]
PRETRAINED = Path(dexcompose_agents.__file__).parent / "pretrained"
WEIGHTS = sorted(PRETRAINED.glob("*.safetensors"))
MASKS = sorted((PRETRAINED / "masks").glob("*.json"))
MEGABYTE = 1_000_000
PAIR_NAMES = tuple("-".join(pair) for pair in PAIRS)


def scene_of(name):
    """The scene of a skill or a pair."""
    if "-" in name:
        return build_scene(*parse_pair(name))
    return build_scene(name) if name in RETENTION_SKILLS else build_scene(None, name)


def test_every_skill_has_a_policy_and_every_pair_its_masks():
    assert {path.name for path in WEIGHTS} >= {f"{skill}.safetensors" for skill in SKILLS}
    assert {path.name for path in MASKS} >= {f"{name}{end}.json" for name in PAIR_NAMES for end in ("", "-heuristic")}


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_weights_belong_to_this_version(path):
    _, manifest = load_weights(path)
    kind = manifest["kind"]
    name = {"diffusion_policy": "skill", "stabiliser": "skill", "residual_b": "pair"}[kind]
    prefix = {"diffusion_policy": "", "stabiliser": "stabiliser-", "residual_b": "residual-"}[kind]
    assert path.stem == prefix + manifest[name]
    assert isinstance(manifest["config"], dict) and manifest["config"]
    assert manifest["env_version"] == __version__
    expected = scene_of(manifest[name]).model_hash
    if kind == "diffusion_policy":
        assert manifest["model_hash"] == expected
    else:
        assert manifest.get("model_hash", expected) == expected


@pytest.mark.parametrize("path", MASKS, ids=lambda path: path.stem)
def test_masks_are_selections_of_their_pair(path):
    selection = Selection.load(path)
    pair = selection.pair
    assert pair in PAIR_NAMES
    assert path.stem in (pair, f"{pair}-{selection.selector}")
    assert selection.why
    assert selection.mask in FingerMask.candidates()
    scored = [FingerMask.parse(text) for text in selection.scores]
    assert selection.mask in scored
    json.dumps(dict(selection.scores), allow_nan=False)


def test_a_stabiliser_knows_the_shipped_masks_of_its_skill():
    """And a residual was trained with the default mask of its pair."""
    for path in WEIGHTS:
        _, manifest = load_weights(path)
        if manifest["kind"] == "stabiliser":
            pairs = [name for name in PAIR_NAMES if parse_pair(name)[0] == manifest["skill"]]
            needed = {str(Selection.load(PRETRAINED / "masks" / f"{name}.json").mask) for name in pairs}
            assert needed <= set(manifest["masks"]), path.name
        elif manifest["kind"] == "residual_b":
            selection = Selection.load(PRETRAINED / "masks" / f"{manifest['pair']}.json")
            assert manifest["mask"] == str(selection.mask), path.name


@pytest.mark.parametrize("skill", RETENTION_SKILLS)
def test_held_states_belong_to_this_version(skill):
    library = HeldStateLibrary.load(skill, env_version=__version__, model_hash=scene_of(skill).model_hash)
    assert len(library) == 4096


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
