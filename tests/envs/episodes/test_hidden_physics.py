"""Hidden mass and friction: where they come from, that they matter, that nobody sees them, and that they are kept."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import env_id, hand
from dexcompose_envs.episodes.hidden_physics import HiddenPhysics
from dexcompose_envs.errors import UsageError
from dexcompose_envs.skills import make_skill, skill_names

BALL = env_id("GraspBall")
PAIR = env_id("PickStick-PushButton")


def worlds(name, num_envs=4, **options):
    return gym.make_vec(name, num_envs=num_envs, autoreset_mode="Disabled", **options)


def hidden(venv):
    return venv.unwrapped.hidden_physics()


def stay(venv):
    """The action that keeps the hand where it is told to be (N, 28)."""
    core = venv.unwrapped.core
    return core.snapshot().previous_action.copy()


def test_draws_fill_their_ranges_and_follow_the_seed():
    rng = np.random.default_rng(0)
    draws = np.array([HiddenPhysics().sample(rng) for _ in range(2000)])
    assert draws.min(0) == pytest.approx([0.7, 0.4], abs=0.01)
    assert draws.max(0) == pytest.approx([2.5, 0.9], abs=0.01)
    # Log-uniform: half of the masses lie below the geometric mean of the ends.
    assert np.mean(draws[:, 0] < np.sqrt(0.7 * 2.5)) == pytest.approx(0.5, abs=0.03)
    first, second = worlds(BALL), worlds(BALL, 2)
    first.reset(seed=3)
    second.reset(seed=3)
    np.testing.assert_array_equal(hidden(first)["mass"][:2], hidden(second)["mass"])
    np.testing.assert_array_equal(hidden(first)["friction"][:2], hidden(second)["friction"])
    assert len(set(hidden(first)["mass"])) == 4


@pytest.mark.parametrize("name", ["PickCan", "PourMug"])
def test_an_object_has_its_own_range_of_hidden_mass(name):
    low, high = make_skill(name).MASS_FACTORS
    for physics, lows, highs in (("randomised", low, high), ({"friction": 0.5}, low, high), ({"mass": 3.0}, 3.0, 3.0)):
        venv = worlds(env_id(name), num_envs=8, physics=physics, num_threads=1)
        venv.reset(seed=0)
        mass = hidden(venv)["mass"]
        assert lows - 1e-9 <= mass.min() and mass.max() <= highs + 1e-9
        venv.close()


@pytest.mark.parametrize(
    ("physics", "mass", "friction"),
    [
        ("nominal", (1.0, 1.0), (0.65, 0.65)),
        ({"mass": 2.0}, (2.0, 2.0), (0.4, 0.9)),
        ({"friction": [0.3, 0.35], "mass": (3, 4)}, (3.0, 4.0), (0.3, 0.35)),
    ],
)
def test_options_fix_and_widen(physics, mass, friction, held_library):
    for start in ("scratch", "held"):
        venv = worlds(PAIR, start=start, physics=physics, held_states=held_library("PickStick"), held_split="all")
        venv.reset(seed=0)
        for values, (low, high) in ((hidden(venv)["mass"], mass), (hidden(venv)["friction"], friction)):
            assert (values >= low - 1e-12).all() and (values <= high + 1e-12).all()
        venv.close()


@pytest.mark.parametrize(
    ("physics", "message"),
    [
        ("hard", "unknown physics 'hard'; expected one of nominal, randomised"),
        ({"weight": 2.0}, "unknown physics 'weight'; expected one of mass, friction"),
        ({"mass": 0.0}, r"physics\['mass'\] is 0.0; expected a number from 0.05 to 20"),
        ({"friction": 2.0}, r"physics\['friction'\] is 2.0; expected a number from 0.01 to 1.5"),
        ({"mass": (2.0, 1.0)}, r"physics\['mass'\] is \(2.0, 1.0\); expected the lower end first"),
        ({"mass": (1.0, 2.0, 3.0)}, "expected a number, or both ends of a range"),
        ({"mass": "a"}, r"physics\['mass'\] is 'a'"),
        (None, "unknown physics None"),
    ],
)
def test_what_makes_no_sense_is_refused(physics, message):
    with pytest.raises(UsageError, match=message):
        gym.make(BALL, physics=physics)


def test_held_starts_bring_the_physics_they_were_held_under(held_library):
    library = held_library("PickStick")
    venv = worlds(PAIR, held_states=library, held_split="all")
    venv.reset(seed=0, options={"held_index": np.array([3, 0, 5, 1])})
    np.testing.assert_allclose(hidden(venv)["mass"], library.physics[[3, 0, 5, 1], 0])
    np.testing.assert_allclose(hidden(venv)["friction"], library.physics[[3, 0, 5, 1], 1])
    venv.close()


def test_nothing_observed_tells_them_at_the_start():
    """The same start with other hidden physics looks the same, forces and torques of the first instant aside."""
    light, heavy = (worlds(BALL, physics={"mass": mass, "friction": 0.5}) for mass in (0.7, 2.5))
    (first, _), (second, _) = light.reset(seed=0), heavy.reset(seed=0)
    layout = light.unwrapped.layout
    for key, observed in first.items():
        for term, columns in layout[key].items():
            if term not in ("torque", "finger_contact"):
                np.testing.assert_array_equal(observed[:, columns], second[key][:, columns], err_msg=term)


def test_a_heavy_object_weighs_more_on_the_fingers(held_library):
    forces = []
    for mass in (0.7, 2.5):
        options = {"held_states": held_library("GraspBall"), "held_split": "all", "start": "held"}
        venv = worlds(BALL, 8, physics={"mass": mass, "friction": 0.65}, **options)
        venv.reset(seed=0, options={"held_index": np.arange(8)})
        for _ in range(10):
            venv.step(stay(venv))
        # Net upward force of the hand on the ball balances its weight.
        links = venv.unwrapped.sensors()["a_contact"].reshape(8, -1, 3)
        forces.append(np.abs(links.sum(axis=1)[:, 2]).mean())
        venv.close()
    assert forces[0] == pytest.approx(0.7 * 0.15 * 9.81, rel=0.05)
    assert forces[1] == pytest.approx(2.5 * 0.15 * 9.81, rel=0.05)


def test_a_slippery_object_slides(held_library):
    slid = []
    for friction in (0.05, 0.65):
        options = {"held_states": held_library("PickStick"), "held_split": "all", "start": "held"}
        venv = worlds(env_id("PickStick"), 8, physics={"friction": friction, "mass": 2.0}, **options)
        venv.reset(seed=0, options={"held_index": np.arange(8)})
        for _ in range(25):
            venv.step(stay(venv))
        way = venv.unwrapped.sensors()["object_position"] - venv.unwrapped.core.snapshot().hold_target
        slid.append(float(np.linalg.norm(way, axis=1).max()))
        venv.close()
    assert slid[0] > 0.01 > 0.002 > slid[1]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_states_and_neighbours_keep_each_worlds_own(held_library, num_threads):
    """A state carries the hidden physics with it, and worlds on one thread don't mix theirs up."""
    options = {"held_states": held_library("GraspBall"), "held_split": "all", "start": "held"}
    many, one = worlds(BALL, 6, num_threads=num_threads, **options), worlds(BALL, 1, **options)
    many.reset(seed=10)
    for world in (0, 5):
        one.reset(seed=10 + world)
        one.unwrapped.set_state(many.unwrapped.get_state()[world][None])
        assert hidden(one)["mass"][0] == hidden(many)["mass"][world]
        before = many.unwrapped.get_state()
        for _ in range(5):
            action = stay(many)
            action[:, : hand.NUM_WRIST] += 0.01
            seen, *_ = many.step(np.clip(action, -1, 1))
            alone, *_ = one.step(np.clip(action[world : world + 1], -1, 1))
            np.testing.assert_array_equal(seen["context"][world], alone["context"][0])
        many.unwrapped.set_state(before)
    many.close()
    one.close()


@pytest.mark.parametrize("skill", skill_names("retention"))
def test_an_object_in_the_hand_never_flies(skill, held_library):
    """Wrong derived masses made heavy objects shoot away at up to 88 m/s."""
    options = {"held_states": held_library(skill), "held_split": "all", "start": "held", "base_shake": 1.0}
    venv = gym.make_vec(env_id(skill), num_envs=8, physics={"mass": (0.5, 4.0), "friction": (0.3, 1.0)}, **options)
    rng = np.random.default_rng(0)
    venv.reset(seed=0)
    start, fastest = stay(venv), 0.0
    for _ in range(40):
        venv.step(np.clip(start + 0.02 * rng.normal(size=start.shape), -1, 1))
        velocity = venv.unwrapped.sensors()["object_linear_velocity"]
        fastest = max(fastest, float(np.linalg.norm(velocity, axis=1).max()))
    assert 0.01 < fastest < 3.0
    venv.close()


@pytest.mark.parametrize(
    ("name", "factor"), [("body_mass", -1.0), ("body_mass", 30.0), ("geom_friction", 5.0), ("dof_M0", 0.0)]
)
def test_a_state_whose_masses_or_friction_make_no_sense_is_refused(name, factor, held_library):
    """They are finite, and MuJoCo would go on with them."""
    venv = worlds(BALL, 2, held_states=held_library("GraspBall"), held_split="all", start="held")
    venv.reset(seed=0)
    core = venv.unwrapped.core
    state = core.get_state()
    row, columns = core.engine.hidden()[1], core.engine.constants.fields[name][1]
    first = core._tag.width + core.engine.state_size - core.engine.constants.size
    np.testing.assert_array_equal(state[1, first : first + len(row)], row)
    wrong = state.copy()
    wrong[1, first + columns.start : first + columns.stop] *= factor
    with pytest.raises(ValueError, match="state holds numbers that no state of this environment has"):
        venv.unwrapped.set_state(wrong)
    np.testing.assert_array_equal(core.get_state(), state)
    venv.close()
