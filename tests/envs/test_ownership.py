import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_envs.hand import ACTION_NAMES, FINGER_JOINTS, FINGERS, NUM_ACTIONS, NUM_WRIST
from dexcompose_envs.ownership import CANONICAL_ORDER, FingerMask

masks = st.sets(st.sampled_from(FINGERS), min_size=1).map(lambda fingers: FingerMask(tuple(fingers)))


@given(masks)
def test_masks_partition_the_action_space(mask):
    a, b = mask.action_mask_a(), mask.action_mask_b()
    assert a.dtype == b.dtype == np.bool_
    assert a.shape == b.shape == (NUM_ACTIONS,)
    assert not (a & b).any()
    assert (a | b).all()


@given(masks)
def test_the_wrist_belongs_to_b(mask):
    assert mask.action_mask_b()[:NUM_WRIST].all()


@given(masks)
def test_m_a_is_exactly_the_joints_of_the_preserved_fingers(mask):
    owned = {ACTION_NAMES[i] for i in np.flatnonzero(mask.action_mask_a())}
    assert owned == {joint for finger in mask.preserved for joint in FINGER_JOINTS[finger]}
    np.testing.assert_array_equal(mask.joint_mask(), mask.action_mask_a()[NUM_WRIST:])


@given(masks)
def test_preserved_and_released_partition_the_fingers(mask):
    assert set(mask.preserved) | set(mask.released) == set(FINGERS)
    assert not set(mask.preserved) & set(mask.released)
    assert mask.num_released == len(mask.released)
    assert [finger for finger, bit in zip(FINGERS, mask.bits, strict=True) if bit] == [
        finger for finger in FINGERS if finger in mask.preserved
    ]


@given(masks, st.randoms(use_true_random=False), st.booleans())
def test_text_in_any_order_and_case_reads_back_as_the_same_value(mask, random, lower):
    fingers = list(mask.preserved)
    random.shuffle(fingers)
    text = " + ".join(finger.lower() if lower else finger for finger in fingers)
    parsed = FingerMask.parse(text)
    assert parsed == mask
    assert hash(parsed) == hash(mask)
    assert str(parsed) == str(mask)
    assert FingerMask.parse(parsed) is parsed
    assert FingerMask.from_bits(mask.bits) == mask
    assert pickle.loads(pickle.dumps(mask)) == mask


@given(masks)
def test_returned_arrays_are_fresh(mask):
    mask.action_mask_a()[:] = True
    mask.joint_mask()[:] = True
    assert not mask.action_mask_a()[:NUM_WRIST].any()
    assert mask.joint_mask().sum() == sum(len(FINGER_JOINTS[finger]) for finger in mask.preserved)


def test_canonical_text_and_counts_by_hand():
    mask = FingerMask.parse("lf+th+Rf")
    assert str(mask) == "TH+RF+LF"
    assert mask.released == ("FF", "MF")
    assert mask.num_released == 2
    assert mask.bits.tolist() == [False, False, True, True, True]  # FF, MF, RF, LF, TH
    assert mask.joint_mask().sum() == 4 + 5 + 5  # ring 4, little 5, thumb 5
    assert mask.action_mask_b().sum() == 28 - 14


def test_candidates_are_the_thirty_masks_that_keep_one_and_release_one():
    candidates = FingerMask.candidates()
    assert len(candidates) == len(set(candidates)) == 2**5 - 2
    assert FingerMask.all_fingers() not in candidates
    assert candidates == FingerMask.candidates()
    assert [len(mask.preserved) for mask in candidates] == sorted((len(m.preserved) for m in candidates), reverse=True)
    assert str(FingerMask.all_fingers()) == "+".join(CANONICAL_ORDER)
    assert FingerMask.all_fingers().num_released == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TH+XX", "unknown finger 'XX'"),
        ("TH RF", "unknown finger 'TH RF'"),
        ("TH+", "unknown finger ''"),
        ("", "preserves no finger"),
        ("  ", "preserves no finger"),
        ("TH+RF+th", "names a finger twice"),
        (None, "finger mask is None of type NoneType"),
        (3, "finger mask is 3 of type int"),
    ],
)
def test_bad_text_is_refused_with_what_came_and_what_was_expected(text, message):
    with pytest.raises(ValueError, match="expected") as error:
        FingerMask.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bits", [[1, 0, 1], [1, 0, 2, 0, 0], [[1, 0, 0, 0, 0]], [0, 0, 0, 0, 0], [np.nan, 1, 0, 0, 0]])
def test_bad_bits_are_refused(bits):
    with pytest.raises(ValueError, match="expected"):
        FingerMask.from_bits(bits)
