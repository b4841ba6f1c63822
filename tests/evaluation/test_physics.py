"""Physical plausibility on motions made by hand."""

import numpy as np
import pytest

from geomotiongpt import get_motion_representation
from geomotiongpt.evaluation.physics import (
    acceleration_error,
    evaluate_physics,
    floating,
    foot_skating_ratio,
    ground_penetration,
    jerk,
    joint_displacements,
)

REPRESENTATIONS = ["humanml3d", "kitml", "streaming272"]


def standing(representation="humanml3d", frames=41):
    """A body whose joints are 1 m high, but for the toes on the ground; in the representation's units."""
    facts = get_motion_representation(representation)
    joints = np.zeros((frames, facts.num_joints, 3))
    joints[..., 1] = 1
    joints[:, [facts.left_foot[1], facts.right_foot[1]], 1] = 0
    return joints / facts.unit_in_metres


def slide(joints, representation, speed, *, toe=None, frames=slice(None)):
    """Joints of which one toe, or the whole body, moves along x and z at a speed in m/s during some frames."""
    facts = get_motion_representation(representation)
    moving = np.zeros(len(joints) - 1)
    moving[frames] = speed / facts.fps / facts.unit_in_metres
    path = np.concatenate([[0], moving.cumsum()])
    moved = joints.copy()
    part = moved if toe is None else moved[:, toe : toe + 1]
    part[..., 0] += 0.6 * path[:, None]
    part[..., 2] += 0.8 * path[:, None]
    return moved


# Foot skating


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_body_that_stands_does_not_skate_and_one_that_slides_does(representation):
    joints = standing(representation)
    assert foot_skating_ratio(joints, representation) == 0
    assert foot_skating_ratio(slide(joints, representation, 0.49), representation) == 0
    # Beyond the ends the speed counts as none, so at 1 m/s all steps skate: 3 of 5 are 0.6 m/s
    assert foot_skating_ratio(slide(joints, representation, 1.0), representation) == 1
    # At 0.6 m/s the two steps at each end do not: 4 of 5 are 0.48 m/s
    assert foot_skating_ratio(slide(joints, representation, 0.6), representation) == pytest.approx(36 / 40)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_either_foot_skates_for_both_and_other_joints_do_not_count(representation):
    facts = get_motion_representation(representation)
    joints = standing(representation)
    for toe in (facts.left_foot[1], facts.right_foot[1]):
        assert foot_skating_ratio(slide(joints, representation, 1.0, toe=toe), representation) == 1
    assert foot_skating_ratio(slide(joints, representation, 1.0, toe=0), representation) == 0


def test_a_toe_in_the_air_does_not_skate_and_both_ends_of_a_step_must_be_low():
    joints = slide(standing(), "humanml3d", 2.0)
    joints[..., 1] += 0.049
    assert foot_skating_ratio(joints) == 1
    joints[20:30, :, 1] += 0.002
    assert foot_skating_ratio(joints) == pytest.approx(29 / 40)  # ten frames are ends of eleven steps


def test_a_jerk_of_one_step_is_not_skating_and_a_rest_within_a_slide_is_none_either():
    one_step = slide(standing(), "humanml3d", 2.0, frames=slice(20, 21))
    assert foot_skating_ratio(one_step) == 0  # 2 / 5 on average
    five_steps = slide(standing(), "humanml3d", 2.0, frames=slice(20, 25))
    assert foot_skating_ratio(five_steps) == pytest.approx(5 / 40)  # not the steps at rest around them


# Ground


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_height_above_and_depth_below_the_ground_are_in_millimetres_and_do_not_cancel(representation):
    joints = standing(representation, frames=10)
    millimetre = 0.001 / get_motion_representation(representation).unit_in_metres
    assert floating(joints, representation) == ground_penetration(joints, representation) == 0
    joints[:5, :, 1] += 30 * millimetre
    joints[5:, :, 1] -= 8 * millimetre
    assert floating(joints, representation) == pytest.approx(15)
    assert ground_penetration(joints, representation) == pytest.approx(4)


def test_the_lowest_joint_counts_whichever_it_is():
    joints = standing(frames=4)
    joints[:, 20, 1] = -0.02
    assert ground_penetration(joints) == pytest.approx(20) and floating(joints) == 0


# Derivatives


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_jerk_is_the_third_derivative_in_metres_per_second_cubed(representation):
    facts = get_motion_representation(representation)
    seconds = np.arange(30) / facts.fps
    joints = standing(representation, frames=30)
    for power, expected in ((0, 0), (1, 0), (2, 0), (3, 6 * 5)):
        moved = joints + (seconds**power)[:, None, None] * np.array([3.0, 0.0, 4.0]) / facts.unit_in_metres
        assert jerk(moved, representation) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_acceleration_error_is_in_millimetres_per_frame_squared_and_blind_to_constant_velocity(representation):
    facts = get_motion_representation(representation)
    target = standing(representation, frames=20)
    frames = np.arange(20)[:, None, None]
    millimetre = 0.001 / facts.unit_in_metres
    assert acceleration_error(target, target, representation) == 0
    drifting = target + 50 * millimetre * (1 + frames)
    assert acceleration_error(drifting, target, representation) == pytest.approx(0, abs=1e-6)
    accelerated = target.copy()
    accelerated[:, :1] += frames**2 / 2 * np.array([3.0, 0.0, 4.0]) * millimetre
    assert acceleration_error(accelerated, target, representation) == pytest.approx(5 / facts.num_joints)


# Many clips and bad input


def test_the_aggregate_is_a_mean_over_clips_whatever_their_lengths():
    still, sliding = standing(frames=101), slide(standing(frames=11), "humanml3d", 1.0)
    sliding[..., 1] += 0.02
    metrics = evaluate_physics([still, sliding])
    assert metrics == {
        "foot_skating_ratio": pytest.approx(0.5),
        "floating_mm": pytest.approx(10),
        "ground_penetration_mm": 0,
        "jerk_m_per_s3": pytest.approx(0, abs=1e-9),
    }
    for clips in ([still], [sliding]):
        assert evaluate_physics(clips)["foot_skating_ratio"] == foot_skating_ratio(clips[0])


@pytest.mark.parametrize("measure", [foot_skating_ratio, floating, ground_penetration, jerk])
def test_joints_of_another_skeleton_or_with_nan_are_an_error(measure):
    with pytest.raises(ValueError, match=r"humanml3d joints must have shape .* 22, 3\), got \(41, 21, 3\)"):
        measure(standing("kitml"))
    joints = standing()
    joints[7, 3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite value, first in frame 7"):
        measure(joints)


def test_clips_too_short_for_a_measure_or_of_other_lengths_are_errors():
    for measure, frames in ((foot_skating_ratio, 2), (jerk, 4)):
        measure(standing(frames=frames))
        with pytest.raises(ValueError, match=f"{frames} or more frames"):
            measure(standing(frames=frames - 1))
    with pytest.raises(ValueError, match="3 or more frames"):
        acceleration_error(standing(frames=2), standing(frames=2))
    with pytest.raises(ValueError, match="motions of 10 and 9 frames"):
        acceleration_error(standing(frames=10), standing(frames=9))


def test_the_aggregate_names_the_clip_at_fault_and_refuses_none():
    with pytest.raises(ValueError, match="clip 1: .*4 or more frames"):
        evaluate_physics([standing(), standing(frames=3)])
    with pytest.raises(ValueError, match="no clips"):
        evaluate_physics([])


# Displacements


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_the_displacement_is_that_of_the_joint_that_moves_furthest(representation):
    facts = get_motion_representation(representation)
    joints = standing(representation, frames=5)
    joints[3:, 4, 0] += 0.03 / facts.unit_in_metres
    joints[3:, 7, 2] -= 0.05 / facts.unit_in_metres
    np.testing.assert_allclose(joint_displacements(joints, representation), [0, 0, 50, 0])
    with pytest.raises(ValueError, match="2 or more frames"):
        joint_displacements(joints[:1], representation)
