"""The model's hash: whatever moves or is felt otherwise changes it, whatever only looks otherwise doesn't."""

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs.scene import build_scene, model_hash_of
from dexcompose_envs.scene.model_hash import model_hash

XML = """
<mujoco>
  <option tolerance="1e-8" timestep="0.005"/>
  <asset>
    <mesh name="stone" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
    <mesh name="picture" vertex="0 0 0  2 0 0  0 2 0  0 0 2"/>
    <texture name="sky" type="skybox" builtin="flat" width="8" height="8" rgb1="1 0 0"/>
    <texture name="paint" type="2d" builtin="flat" width="8" height="8" rgb1="0 1 0"/>
    <material name="matter" texture="paint" rgba="1 1 1 1" specular="0.5"/>
  </asset>
  <worldbody>
    <light name="sun" pos="0 0 3"/>
    <camera name="eye" pos="1 0 0" fovy="45"/>
    <geom name="floor" type="plane" size="2 2 0.1" material="matter"/>
    <body name="arm" pos="0 0 1">
      <joint name="hinge" axis="0 1 0" range="-1 1" damping="0.1" frictionloss="0.01"/>
      <geom name="bone" type="capsule" size="0.05 0.3" friction="0.9 0.01 0.001"/>
      <geom name="shown" type="mesh" mesh="picture" contype="0" conaffinity="0" mass="0" rgba="1 0 0 1" group="2"/>
      <site name="wound" pos="0 0 0.1"/>
      <site name="tip" pos="0 0 0.3"/>
      <body name="rock" pos="0.5 0 0">
        <joint name="slide" type="slide" axis="0 0 1" stiffness="3"/>
        <geom name="lump" type="mesh" mesh="stone" mass="0.2"/>
      </body>
    </body>
    <body name="ball" pos="1 1 1">
      <freejoint name="loose"/>
      <geom name="round" size="0.1" margin="0.001"/>
    </body>
    <body name="stand" pos="2 0 0" mocap="true"><geom name="block" type="box" size="0.1 0.1 0.1"/></body>
  </worldbody>
  <tendon>
    <spatial name="rope" stiffness="1" range="0 2"><site site="wound"/><geom geom="round"/><site site="tip"/></spatial>
  </tendon>
  <contact><exclude body1="arm" body2="ball"/></contact>
  <equality><weld name="glue" body1="ball" body2="stand" active="false"/></equality>
  <actuator><position name="motor" joint="hinge" kp="5" forcerange="-3 3"/></actuator>
  <sensor>
    <jointpos name="angle" joint="hinge"/>
    <framepos name="place" objtype="site" objname="tip" reftype="body" refname="ball"/>
    <distance name="gap" geom1="bone" geom2="round" cutoff="1"/>
  </sensor>
</mujoco>
"""


def hash_after(change=lambda spec: None):
    spec = mujoco.MjSpec.from_string(XML)
    change(spec)
    return model_hash(spec.compile())


PLAIN = hash_after()


def shift(name, attribute, by, of):
    """Adds `by` to an attribute of an element of the spec, in its first component if it has several."""

    def change(spec):
        element = of(spec, name)
        value = np.array(getattr(element, attribute), float)
        value.reshape(-1)[0] += by
        setattr(element, attribute, value if value.ndim else float(value))

    return change


def body(spec, name):
    return spec.body(name)


def joint(spec, name):
    return spec.joint(name)


def geom(spec, name):
    return spec.geom(name)


def site(spec, name):
    return spec.site(name)


def option(spec, name):
    return spec.option


MOVING = {
    "a body's position": ("arm", "pos", body),
    "a mocap body's position": ("stand", "pos", body),
    "a joint's position": ("hinge", "pos", joint),
    "a joint's axis": ("hinge", "axis", joint),
    "a joint's range": ("hinge", "range", joint),
    "damping": ("hinge", "damping", joint),
    "joint friction": ("hinge", "frictionloss", joint),
    "armature": ("hinge", "armature", joint),
    "stiffness": ("slide", "stiffness", joint),
    "a spring's rest": ("slide", "springref", joint),
    "a site": ("tip", "pos", site),
    "a geom's position": ("bone", "pos", geom),
    "a geom's size": ("bone", "size", geom),
    "a geom's friction": ("bone", "friction", geom),
    "a geom's contact softness": ("bone", "solimp", geom),
    "a margin": ("round", "margin", geom),
    "a mass": ("lump", "mass", geom),
    "the time step": ("", "timestep", option),
    "gravity": ("", "gravity", option),
    "the solver's ratio": ("", "impratio", option),
    "a force limit": ("motor", "forcerange", lambda spec, name: spec.actuator(name)),
    "a gain": ("motor", "gainprm", lambda spec, name: spec.actuator(name)),
    "a tendon's stiffness": ("rope", "stiffness", lambda spec, name: spec.tendon(name)),
    "a tendon's range": ("rope", "range", lambda spec, name: spec.tendon(name)),
    "a sensor's cutoff": ("gap", "cutoff", lambda spec, name: spec.sensor(name)),
    "a weld": ("glue", "data", lambda spec, name: spec.equality(name)),
    "a vertex of a mesh that collides": ("stone", "uservert", lambda spec, name: spec.mesh(name)),
}
SEEN = {
    "a camera's place": ("eye", "pos", lambda spec, name: spec.camera(name)),
    "a camera's angle": ("eye", "fovy", lambda spec, name: spec.camera(name)),
    "a light's place": ("sun", "pos", lambda spec, name: spec.light(name)),
    "a light's colour": ("sun", "diffuse", lambda spec, name: spec.light(name)),
    "a colour": ("bone", "rgba", geom),
    "where a picture hangs": ("shown", "pos", geom),
    "a material": ("matter", "specular", lambda spec, name: spec.material(name)),
    "a texture": ("paint", "rgb1", lambda spec, name: spec.texture(name)),
    "a vertex of a mesh that is only seen": ("picture", "uservert", lambda spec, name: spec.mesh(name)),
}


@pytest.mark.parametrize("what", MOVING)
@settings(max_examples=8)
@given(by=st.floats(1e-4, 0.02))
def test_whatever_moves_otherwise_counts(what, by):
    name, attribute, of = MOVING[what]
    assert hash_after(shift(name, attribute, by, of)) != PLAIN


@pytest.mark.parametrize("what", SEEN)
@settings(max_examples=4)
@given(by=st.floats(-0.02, -1e-4))
def test_whatever_is_only_seen_does_not_count(what, by):
    name, attribute, of = SEEN[what]
    assert hash_after(shift(name, attribute, by, of)) == PLAIN


@pytest.mark.parametrize(
    ("attribute", "value"), [("tolerance", 1e-7), ("ls_tolerance", 0.02), ("noslip_iterations", 3)]
)
def test_small_settings_count(attribute, value):
    assert hash_after(lambda spec: setattr(spec.option, attribute, value)) != PLAIN


def remove(of, name):
    return lambda spec: spec.delete(of(spec, name))


def test_things_that_are_gone_or_new_count():
    changes = [
        lambda spec: spec.delete(spec.excludes[0]),
        lambda spec: spec.delete(spec.sensors[1]),
        lambda spec: spec.delete(spec.equalities[0]),
        lambda spec: spec.add_exclude(bodyname1="ball", bodyname2="rock"),
        lambda spec: spec.add_pair(geomname1="shown", geomname2="round"),
        lambda spec: spec.add_sensor(type=mujoco.mjtSensor.mjSENS_CLOCK),
        lambda spec: spec.worldbody.add_geom(size=[0.1, 0, 0]),
        lambda spec: setattr(spec.geom("shown"), "contype", 1),
        lambda spec: setattr(spec.body("stand"), "mocap", False),
        lambda spec: setattr(spec.sensors[1], "refname", "stand"),
    ]
    assert len({PLAIN, *map(hash_after, changes)}) == len(changes) + 1


def test_names_and_pictures_do_not_count_even_where_they_shift_numbers():
    def rename(spec):
        for kind in ("bodies", "geoms", "joints", "sites", "sensors", "tendons", "cameras"):
            for element in getattr(spec, kind)[:]:
                if element.name and element.name != "world":
                    element.name += "_renamed"

    changed = XML.replace(
        '<geom name="floor"', '<geom size="9" contype="0" conaffinity="0" mass="0"/><geom name="floor"'
    )
    assert model_hash(mujoco.MjSpec.from_string(changed).compile()) == PLAIN
    spec = mujoco.MjSpec.from_string(XML)
    model = spec.compile()
    assert model_hash(model) == PLAIN
    renamed = XML
    for name in ("arm", "hinge", "bone", "tip", "ball", "round", "place", "gap", "rope", "motor", "stone"):
        renamed = renamed.replace(f'"{name}"', f'"{name}_2"')
    assert model_hash(mujoco.MjSpec.from_string(renamed).compile()) == PLAIN


def test_everything_that_is_seen_counts_where_a_sensor_looks():
    looking = XML.replace("</sensor>", '<rangefinder site="tip"/></sensor>')
    moved = looking.replace('mass="0" rgba', 'mass="0" pos="0.1 0 0" rgba')
    assert model_hash(mujoco.MjModel.from_xml_string(looking)) != model_hash(mujoco.MjModel.from_xml_string(moved))


def test_what_a_machine_rounds_otherwise_does_not_count():
    assert hash_after(shift("arm", "pos", 1e-12, body)) == PLAIN
    assert hash_after(shift("arm", "pos", 1e-4, body)) != PLAIN


def test_the_hash_is_known():
    """The shipped files say these; a change here makes them all invalid, so it must be meant."""
    names = ("GraspBall", "PickStick", "PushButton", "GraspBall-PushButton", "PickStick-PushButton")
    known = ["def532080867", "f0419c418e19", "5036619fef81", "59d3b8233443", "a3bcfd6da13d"]
    assert [model_hash_of(name) for name in names] == known
    assert build_scene("GraspBall").model_hash == known[0]
