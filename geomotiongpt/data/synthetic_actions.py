"""The actions of the synthetic data: attributes in, control curves of a body out.

An action writes a few curves (pelvis, trunk, arms, toes), which `synthetic_motion` turns into joints. Planted toes
keep their place, so feet do not slide. Only the left-sided form of an action is written down; the right-sided one is
its mirror image. Axes: x to the person's left, y up, z ahead; metres and degrees, for a body of the reference size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

FPS = 20
MIN_FRAMES, MAX_FRAMES = 40, 160
GRAVITY = 9.81
SWAP_SIDE = {"left": "right", "right": "left", "both": "both", None: None}


@dataclass(frozen=True)
class MotionAttributes:
    """What one stretch of a clip shows; `None` where the action has no such attribute or a caption leaves it out.

    Args:
        action: one of `ACTIONS`.
        side: "left", "right" or "both": the limb that acts, the leg that carries, or the direction of travel or turn
            (left is counterclockwise seen from above).
        speed: "slow" or "fast"; an ordinary pace is `None`.
        count: repetitions, or steps for `walk`, `run`, `walk_backward`.
        distance: metres travelled, for a body of the reference size.
        degrees: angle of a `turn`.
    """

    action: str
    side: str | None = None
    speed: str | None = None
    count: int | None = None
    distance: int | None = None
    degrees: int | None = None

    def mirrored(self) -> "MotionAttributes":
        """The attributes of the mirror image."""
        return replace(self, side=SWAP_SIDE[self.side])


# Control channels: the rows of a (29, frames) array. Angles in degrees, lengths in metres.
X, Y, Z, YAW, PITCH, ROLL = range(6)  # pelvis; Y is the offset from the standing height
BEND, LEAN, TWIST, NOD, LOOK = range(6, 11)  # trunk forward, sideways, around; head down, around
LEFT_ARM, RIGHT_ARM = 11, 15
FLEX, ABDUCT, INWARD, ELBOW = range(4)  # upper arm forward, outward, turned inward; elbow bend
LEFT_FOOT, RIGHT_FOOT = 19, 24
FOOT_X, FOOT_Y, FOOT_Z, HEEL, FOOT_YAW = range(5)  # toe position, heel lift, direction
NUM_CHANNELS = 29

TOE_OUT, TOE_AHEAD = 0.12, 0.095  # neutral toe position beside and before the pelvis
_MIRROR_ORDER = np.r_[0:11, 15:19, 11:15, 24:29, 19:24]
_MIRROR_SIGN = np.ones((NUM_CHANNELS, 1))
_MIRROR_SIGN[[X, YAW, ROLL, LEAN, TWIST, LOOK, *(f + c for f in (19, 24) for c in (FOOT_X, FOOT_YAW))]] = -1

_NEUTRAL = np.zeros((NUM_CHANNELS, 1))
for _arm in (LEFT_ARM, RIGHT_ARM):
    _NEUTRAL[_arm : _arm + 4, 0] = 2, 8, 12, 14
_NEUTRAL[[LEFT_FOOT + FOOT_X, RIGHT_FOOT + FOOT_X], 0] = TOE_OUT, -TOE_OUT
_NEUTRAL[[LEFT_FOOT + FOOT_Z, RIGHT_FOOT + FOOT_Z], 0] = TOE_AHEAD


# -------- Curves


def _ease(u: np.ndarray) -> np.ndarray:
    """Minimum-jerk step from 0 to 1."""
    u = np.clip(u, 0, 1)
    return u * u * u * (10 + u * (6 * u - 15))


def _hump(u: np.ndarray, centre: float, half_width: float) -> np.ndarray:
    """Raised cosine: 1 at `centre`, 0 from `half_width` on."""
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((u - centre) / half_width, -1, 1))


def _pulse(t: np.ndarray, start: float, end: float, rise: float) -> np.ndarray:
    """0, then 1 between `start` and `end`, with eased flanks of `rise` seconds inside."""
    return _ease((t - start) / rise) * _ease((end - t) / rise)


def _flight(t: np.ndarray, takeoff: float, height: float) -> tuple[np.ndarray, float]:
    """Ballistic height (metres) over time, and the landing time."""
    speed = np.sqrt(2 * GRAVITY * height)
    s = np.clip(t - takeoff, 0, 2 * speed / GRAVITY)
    return s * (speed - GRAVITY / 2 * s), takeoff + 2 * speed / GRAVITY


def _smooth(curves: np.ndarray, width: int) -> np.ndarray:
    """Centred moving average over `width` frames, edges repeated."""
    before = width // 2
    padded = np.concatenate(
        [np.repeat(curves[:, :1], before + 1, 1), curves, np.repeat(curves[:, -1:], width - before - 1, 1)], 1
    )
    total = padded.cumsum(1)
    return (total[:, width:] - total[:, :-width]) / width


def _stand(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Controls of somebody who just stands, and the time of each frame."""
    num_frames = int(np.ceil(seconds * FPS)) + 1
    return np.repeat(_NEUTRAL, num_frames, 1), np.arange(num_frames) / FPS


def _cycle(t: np.ndarray, start: float, period: float, count: int) -> np.ndarray:
    """Time since the running repetition began; a whole period once all are done."""
    since = np.clip(t - start, 0, period * count)
    done = np.minimum(since // period, count - 1)
    return since - done * period


def _keyed(
    size: float,
    period: float,
    count: int,
    times: Sequence[float],
    poses: Mapping[int, ArrayLike],
    lead: float = 0.1,
) -> np.ndarray:
    """Controls that pass `count` times through keyed offsets from standing.

    Args:
        size: factor on every offset.
        period: seconds of one repetition.
        times: key times as fractions of the period, from 0 to 1.
        poses: for each channel, its offset at every key.
        lead: seconds of standing before and after.
    """
    controls, t = _stand(period * count + 2 * lead)
    u = _cycle(t, lead, period, count) / period
    keys = np.asarray(times)
    left = np.clip(np.searchsorted(keys, u, side="right") - 1, 0, len(keys) - 2)
    blend = _ease((u - keys[left]) / (keys[left + 1] - keys[left]))
    values = size * np.asarray(list(poses.values()))
    controls[list(poses)] += values[:, left] * (1 - blend) + values[:, left + 1] * blend
    return controls


def _footsteps(
    targets: np.ndarray, period: float, swing: float, lift: float, heel: float, arm_swing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gait from footsteps: each foot holds its place, then swings to the next target; the pelvis follows the feet.

    Args:
        targets: (steps, 3) body place x, z (metres) and heading (degrees) that each step makes for, left foot first.
        period: seconds from one step to the next.
        swing: seconds a foot is in the air.
        lift: height of the toe in mid-swing, metres.
        heel: heel lift at push-off, degrees.
        arm_swing: degrees of arm swing per metre between the feet.

    Returns:
        controls; time of each frame; how much each foot is off the floor, (2, frames), 0 to 1.
    """
    lead = 0.25
    starts = lead + period * np.arange(len(targets))
    controls, t = _stand(starts[-1] + swing + 0.3)
    paths, airborne = [], []
    for foot, (channel, outward) in enumerate(((LEFT_FOOT, TOE_OUT), (RIGHT_FOOT, -TOE_OUT))):
        u = (t - starts[foot::2, None]) / swing
        moves = np.diff(targets[foot::2], axis=0, prepend=0)
        path = moves.T @ _ease(u)
        yaw = np.deg2rad(path[2])
        controls[channel + FOOT_X] = path[0] + outward * np.cos(yaw) + TOE_AHEAD * np.sin(yaw)
        controls[channel + FOOT_Z] = path[1] - outward * np.sin(yaw) + TOE_AHEAD * np.cos(yaw)
        controls[channel + FOOT_YAW] = path[2]
        in_air = _hump(u, 0.5, 0.5).sum(0)
        controls[channel + FOOT_Y] = lift * in_air
        controls[channel + HEEL] = heel * _hump(u, 0.1, 0.5).sum(0) - 0.25 * heel * _hump(u, 0.8, 0.2).sum(0)
        paths.append(path)
        airborne.append(in_air)
    # Averaging over exactly one step turns the feet's stop and go into an even pelvis speed.
    width = max(2, round(period * FPS))
    body = _smooth(_smooth((paths[0] + paths[1]) / 2, width), max(2, width // 2))
    yaw = np.deg2rad(body[2])
    sway = 0.02 * _smooth((airborne[1] - airborne[0])[None], 3)[0]
    controls[X] = body[0] + sway * np.cos(yaw)
    controls[Z] = body[1] - sway * np.sin(yaw)
    controls[YAW] = body[2]
    ahead = paths[0] - paths[1]
    stride = ahead[0] * np.sin(yaw) + ahead[1] * np.cos(yaw)
    controls[LEFT_ARM + FLEX] -= arm_swing * stride
    controls[RIGHT_ARM + FLEX] += arm_swing * stride
    controls[TWIST] += 0.35 * arm_swing * stride
    controls[YAW] -= 6 * stride
    return controls, t, np.stack(airborne)


# -------- Actions: each returns the controls of its left-sided form, beginning and ending at a stand (or a seat)

Maker = Callable[[np.random.Generator, MotionAttributes, float], np.ndarray]


def _repetitions(rng: np.random.Generator, attributes: MotionAttributes, most: int = 3) -> int:
    return attributes.count or int(rng.integers(1, most + 1))


def _strides(num_steps: int) -> np.ndarray:
    """Length of each step relative to a full one: shorter at both ends; the last only brings the feet together."""
    strides = np.ones(num_steps)
    strides[-1] = 0
    if num_steps > 2:
        strides[[0, -2]] = 0.6
    return strides


def _progress(num_steps: int) -> np.ndarray:
    """Fraction of the way after each step."""
    way = np.cumsum(_strides(num_steps))
    return way / way[-1]


def _straight(
    rng: np.random.Generator, attributes: MotionAttributes, stride: float, seconds: float, period: float
) -> np.ndarray:
    """Step targets straight ahead: as many steps, or metres, as asked for."""
    if attributes.count:
        num_steps = attributes.count
    elif attributes.distance:
        num_steps = max(3, round(attributes.distance / stride + 1.8))
    else:
        num_steps = max(4, round(rng.uniform(0.8, 1.2) * seconds / period))
    length = attributes.distance or stride * _strides(num_steps).sum()
    targets = np.zeros((num_steps, 3))
    targets[:, 1] = length * _progress(num_steps)
    return targets


def _idle(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    controls, t = _stand(rng.uniform(2, 5))
    controls[X] += 0.015 * np.sin(2 * np.pi * (rng.uniform(0.15, 0.3) * t + rng.uniform()))
    controls[LOOK] += 8 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.3) * t + rng.uniform()))
    return controls


def _walk(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    stride, period = rng.uniform(0.55, 0.68) * pace**0.5, 0.54 * pace**-0.55
    targets = _straight(rng, attributes, stride, 4.0, period)
    return _footsteps(targets, period, 0.8 * period, 0.07, 38, rng.uniform(26, 40))[0]


def _walk_backward(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    stride, period = rng.uniform(0.4, 0.5) * pace**0.5, 0.6 * pace**-0.55
    targets = -_straight(rng, attributes, stride, 4.0, period)
    controls = _footsteps(targets, period, 0.8 * period, 0.07, 22, rng.uniform(15, 25))[0]
    controls[BEND] += 4
    return controls


def _run(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    stride, period = rng.uniform(0.88, 1.02) * pace**0.35, 0.34 * pace**-0.3
    targets = _straight(rng, attributes, stride, 3.0, period)
    controls, t, airborne = _footsteps(targets, period, 1.35 * period, 0.24, 65, rng.uniform(24, 32))
    effort = np.minimum(1, 1.3 * _smooth(airborne.max(0)[None], 2 * round(period * FPS))[0])
    # Highest in mid-flight: a foot lands 1.35 periods after its start and leaves at 2.
    controls[Y] += effort * (0.035 * np.cos(2 * np.pi * ((t - 0.25) / period - 0.175)) - 0.03)
    controls[BEND] += effort * rng.uniform(8, 16)
    for arm in (LEFT_ARM, RIGHT_ARM):
        controls[arm + ELBOW] += 75 * effort
    return controls


def _sidestep(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    period = 0.46 / pace
    count = _repetitions(rng, attributes, 4)
    targets = np.zeros((2 * count, 3))
    targets[:, 0] = rng.uniform(0.32, 0.45) * np.repeat(np.arange(1, count + 1), 2)
    return _footsteps(targets, period, 0.85 * period, 0.06, 12, 10)[0]


def _turn(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    degrees = attributes.degrees or 90 * int(rng.integers(1, 3))
    num_steps = 2 + round(degrees / rng.uniform(36, 46))
    period = 0.5 / pace
    targets = np.zeros((num_steps, 3))
    targets[:, 2] = degrees * _progress(num_steps)
    controls = _footsteps(targets, period, 0.8 * period, 0.05, 14, 10)[0]
    controls[LOOK] += 0.25 * (
        _smooth(controls[YAW:PITCH], 3)[0][np.r_[5 : len(controls[0]), [-1] * 5]] - controls[YAW]
    )
    return controls


def _spin(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    degrees = 360 * _repetitions(rng, attributes, 2)
    num_steps = 2 + round(degrees / 62)
    period = 0.3 / pace
    targets = np.zeros((num_steps, 3))
    targets[:, 2] = degrees * _progress(num_steps)
    controls, t, _ = _footsteps(targets, period, 0.85 * period, 0.04, 25, 0)
    out = _pulse(t, 0, t[-1], 0.4)
    for arm in (LEFT_ARM, RIGHT_ARM):
        controls[arm + ABDUCT] += rng.uniform(50, 65) * out
    return controls


def _circle(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    radius, period = rng.uniform(0.6, 0.8) * pace**0.5, 0.5 * pace**-0.5
    num_steps = 2 + round(2 * np.pi * radius / (0.52 * pace**0.5))
    angle = 2 * np.pi * _progress(num_steps)
    targets = np.stack([radius * (1 - np.cos(angle)), radius * np.sin(angle), np.rad2deg(angle)], 1)
    controls = _footsteps(targets, period, 0.8 * period, 0.07, 34, 30)[0]
    controls[LEAN] -= 3
    return controls


def _march(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    period = 0.48 / pace
    num_steps = 2 * round(rng.uniform(1.2, 2.2) / period)
    controls, _, airborne = _footsteps(np.zeros((num_steps, 3)), period, 0.9 * period, rng.uniform(0.26, 0.36), 35, 0)
    for arm, foot in ((LEFT_ARM, 1), (RIGHT_ARM, 0)):
        controls[arm + FLEX] += 35 * airborne[foot] - 8
        controls[arm + ELBOW] += 45 * airborne[foot]
    for foot, channel in enumerate((LEFT_FOOT, RIGHT_FOOT)):
        controls[channel + FOOT_Z] += 0.14 * airborne[foot]
    return controls


def _leaps(rng: np.random.Generator, count: int, forward: float) -> np.ndarray:
    """Two-footed jumps: crouch, ballistic flight, cushioned landing."""
    height, takeoff = rng.uniform(0.18, 0.34), rng.uniform(0.5, 0.6)
    landing = _flight(np.zeros(1), takeoff, height)[1]
    period = landing + rng.uniform(0.5, 0.6)
    controls, t = _stand(period * count + 0.2)
    u = _cycle(t, 0.1, period, count)
    rise = _flight(u, takeoff, height)[0]
    crouch = _pulse(u, 0, takeoff + 0.05, 0.27) + 0.8 * _pulse(u, landing - 0.06, period, 0.22)
    reach = _pulse(u, takeoff - 0.3, period, 0.45)
    controls[Y] += rise - rng.uniform(0.2, 0.28) * crouch
    controls[BEND] += 28 * crouch
    controls[Z] -= 0.06 * crouch
    travelled = forward * (
        np.floor(np.clip((t - 0.1) / period, 0, count - 1)) + _ease((u - takeoff) / (landing - takeoff))
    )
    controls[Z] += _smooth(travelled[None], 7)[0]
    for arm in (LEFT_ARM, RIGHT_ARM):
        controls[arm + FLEX] += 115 * reach - 35 * _pulse(u, 0, takeoff, 0.28)
        controls[arm + ELBOW] += 20 * reach
    for foot in (LEFT_FOOT, RIGHT_FOOT):
        controls[foot + FOOT_Y] += rise
        controls[foot + FOOT_Z] += travelled
        controls[foot + HEEL] += 40 * _pulse(u, takeoff - 0.12, landing + 0.1, 0.12)
    return controls


def _jump(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    return _leaps(rng, _repetitions(rng, attributes), 0.0)


def _jump_forward(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    return _leaps(rng, _repetitions(rng, attributes), rng.uniform(0.8, 1.2))


def _hop(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    count, height, takeoff = _repetitions(rng, attributes, 5), rng.uniform(0.06, 0.12), 0.2
    landing = _flight(np.zeros(1), takeoff, height)[1]
    period = landing + 0.18
    controls, t = _stand(period * count + 1.1)
    u = _cycle(t, 0.55, period, count)
    rise, up = _flight(u, takeoff, height)[0], _pulse(t, 0.05, t[-1] - 0.05, 0.4)
    dip = _pulse(u, 0, takeoff + 0.03, 0.11) + _pulse(u, landing - 0.05, period, 0.11)
    controls[X] += 0.09 * up
    controls[Y] += rise - 0.07 * dip
    controls[LEFT_FOOT + FOOT_Y] += rise
    controls[LEFT_FOOT + HEEL] += 25 * _pulse(u, takeoff - 0.08, landing + 0.06, 0.08)
    controls[RIGHT_FOOT + FOOT_Y] += rise + 0.28 * up
    controls[RIGHT_FOOT + FOOT_Z] -= 0.3 * up
    controls[RIGHT_FOOT + FOOT_X] += 0.05 * up
    controls[RIGHT_FOOT + HEEL] += 65 * up
    for arm in (LEFT_ARM, RIGHT_ARM):
        controls[arm + ABDUCT] += 25 * up
        controls[arm + ELBOW] += 35 * up
    return controls


def _jumping_jack(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    count, height = _repetitions(rng, attributes, 4), 0.06
    half = 0.45 * rng.uniform(0.95, 1.1)
    controls, t = _stand(2 * half * count + 0.2)
    u, v = _cycle(t, 0.1, 2 * half, count), _cycle(t, 0.1, half, 2 * count)
    rise, landing = _flight(v, 0.15, height)
    apart = _ease((u - 0.15) / (landing - 0.15)) - _ease((u - half - 0.15) / (landing - 0.15))
    arms = _ease((u - 0.05) / half) - _ease((u - half - 0.05) / (half - 0.05))
    controls[Y] += rise - 0.06 * _pulse(v, 0, 0.17, 0.08) - 0.05 * _pulse(v, landing - 0.04, half, 0.04)
    for arm, foot, outward in ((LEFT_ARM, LEFT_FOOT, 1), (RIGHT_ARM, RIGHT_FOOT, -1)):
        controls[arm + ABDUCT] += rng.uniform(140, 155) * arms
        controls[foot + FOOT_X] += outward * 0.24 * apart
        controls[foot + FOOT_Y] += rise
        controls[foot + HEEL] += 20 * _pulse(v, 0.05, landing + 0.08, 0.1)
    return controls


def _squat(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    depth = (0, 1, 1, 0)
    arms = {arm + c: np.multiply(v, depth) for arm in (LEFT_ARM, RIGHT_ARM) for c, v in ((FLEX, 60), (ELBOW, 10))}
    poses = {Y: np.multiply(-0.38, depth), Z: np.multiply(-0.12, depth), BEND: np.multiply(30, depth)}
    poses |= {PITCH: np.multiply(12, depth), NOD: np.multiply(-15, depth)} | arms
    return _keyed(rng.uniform(0.85, 1.1), 1.7 / pace, _repetitions(rng, attributes), (0, 0.45, 0.55, 1), poses)


def _sit_down(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    poses: dict[int, ArrayLike] = {
        Y: (0, -0.24, -0.43, -0.43),
        Z: (0, -0.2, -0.36, -0.36),
        BEND: (0, 36, 8, 2),
        PITCH: (0, 16, 0, -4),
        NOD: (0, -14, 0, 0),
    }
    for arm in (LEFT_ARM, RIGHT_ARM):
        poses |= {arm + FLEX: (0, 30, 22, 20), arm + ELBOW: (0, 15, 55, 60), arm + INWARD: (0, 0, 12, 14)}
    controls = _keyed(rng.uniform(0.92, 1.05), 1.9 / pace, 1, (0, 0.5, 0.85, 1), poses, lead=0.15)
    return controls[:, : -round(0.1 * FPS)]


def _stand_up(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    return _sit_down(rng, attributes, pace)[:, ::-1].copy()


def _lunge(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    poses = {
        Y: (0, -0.04, -0.28, -0.28, -0.04, 0),
        Z: (0, 0.16, 0.36, 0.36, 0.16, 0),
        X: (0, -0.03, 0, 0, -0.03, 0),
        BEND: (0, 6, 10, 10, 6, 0),
        LEFT_FOOT + FOOT_Z: (0, 0.3, 0.78, 0.78, 0.3, 0),
        LEFT_FOOT + FOOT_Y: (0, 0.2, 0, 0, 0.2, 0),
        RIGHT_FOOT + HEEL: (0, 12, 55, 55, 12, 0),
        LEFT_ARM + ELBOW: (0, 30, 60, 60, 30, 0),
        RIGHT_ARM + ELBOW: (0, 30, 60, 60, 30, 0),
    }
    times = (0, 0.2, 0.4, 0.55, 0.8, 1)
    return _keyed(rng.uniform(0.9, 1.05), 2.0 / pace, _repetitions(rng, attributes, 2), times, poses)


def _kick(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    poses = {
        X: (0, -0.08, -0.09, -0.09, -0.08, 0),
        LEFT_FOOT + FOOT_Y: (0, 0.36, 0.66, 0.62, 0.26, 0),
        LEFT_FOOT + FOOT_Z: (0, 0.04, 0.78, 0.76, 0.08, 0),
        LEFT_FOOT + FOOT_X: (0, -0.04, -0.08, -0.08, -0.04, 0),
        LEFT_FOOT + HEEL: (0, 45, -30, -30, 25, 0),
        BEND: (0, 6, -10, -10, 4, 0),
        PITCH: (0, -4, -14, -14, -4, 0),
        LEFT_ARM + FLEX: (0, 10, -30, -30, 0, 0),
        RIGHT_ARM + FLEX: (0, 20, 45, 45, 20, 0),
        LEFT_ARM + ELBOW: (0, 50, 40, 40, 40, 0),
        RIGHT_ARM + ELBOW: (0, 50, 60, 60, 40, 0),
    }
    times = (0, 0.3, 0.48, 0.55, 0.75, 1)
    return _keyed(rng.uniform(0.88, 1.05), 1.4 / pace, _repetitions(rng, attributes), times, poses)


def _punch(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    guard = {
        RIGHT_ARM + FLEX: (35,) * 4,
        RIGHT_ARM + ELBOW: (105,) * 4,
        RIGHT_ARM + INWARD: (10,) * 4,
    }
    poses = guard | {
        LEFT_ARM + FLEX: (30, 84, 84, 30),
        LEFT_ARM + ELBOW: (105, -8, -8, 105),
        LEFT_ARM + INWARD: (8, -6, -6, 8),
        TWIST: (12, -26, -26, 12),
        BEND: (3, 8, 8, 3),
        Y: (-0.02, -0.04, -0.04, -0.02),
        Z: (0, 0.05, 0.05, 0),
    }
    size = rng.uniform(0.93, 1.04)
    controls = _keyed(size, 0.85 / pace, _repetitions(rng, attributes), (0, 0.4, 0.5, 1), poses, lead=0.55)
    # The fists go up before the first punch and come down after the last.
    t = np.arange(controls.shape[1]) / FPS
    return _NEUTRAL + (controls - _NEUTRAL) * _pulse(t, 0, t[-1], 0.5)


def _arms_of(attributes: MotionAttributes) -> tuple[int, ...]:
    return (LEFT_ARM, RIGHT_ARM) if attributes.side == "both" else (LEFT_ARM,)


def _wave(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    controls, t = _stand(rng.uniform(2.2, 3.8))
    up = _pulse(t, 0.05, t[-1] - 0.05, 0.55)
    sway = np.sin(2 * np.pi * 1.5 * pace * (t - 0.5)) * _pulse(t, 0.4, t[-1] - 0.4, 0.2)
    lift, bend, swing = rng.uniform(70, 95), rng.uniform(72, 92), rng.uniform(22, 32)
    for arm in _arms_of(attributes):
        controls[arm + ABDUCT] += lift * up
        controls[arm + FLEX] += 86 * up
        controls[arm + INWARD] -= 12 * up
        controls[arm + ELBOW] += bend * up + swing * sway
    return controls


def _raise_arm(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    rise = 0.9 / pace
    controls, t = _stand(2 * rise + rng.uniform(0.6, 1.4))
    up = _pulse(t, 0.1, t[-1] - 0.1, rise)
    height = rng.uniform(150, 172)
    for arm in _arms_of(attributes):
        controls[arm + FLEX] += height * up
        controls[arm + ELBOW] -= 6 * up
    return controls


def _throw(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    poses = {
        LEFT_ARM + ABDUCT: (0, 72, 80, 40, 14, 0),
        LEFT_ARM + FLEX: (0, 60, 112, 95, 35, 0),
        LEFT_ARM + INWARD: (0, -10, -12, -10, 10, 0),
        LEFT_ARM + ELBOW: (0, 75, 90, 5, 10, 0),
        RIGHT_ARM + FLEX: (0, 40, 50, 5, 0, 0),
        TWIST: (0, 22, 34, -28, -30, 0),
        BEND: (0, -4, -8, 16, 22, 0),
        Z: (0, -0.05, -0.07, 0.06, 0.08, 0),
    }
    return _keyed(rng.uniform(0.92, 1.05), 1.9, 1, (0, 0.3, 0.42, 0.55, 0.7, 1), poses, lead=0.15)


def _balance(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    controls, t = _stand(rng.uniform(2.6, 4.5))
    up = _pulse(t, 0.1, t[-1] - 0.1, 0.7)
    height, wobble = rng.uniform(0.28, 0.42), np.sin(2 * np.pi * (rng.uniform(0.5, 0.9) * t + rng.uniform()))
    controls[X] += up * (0.095 + 0.01 * wobble)
    controls[LEAN] += 3 * up * wobble
    controls[RIGHT_FOOT + FOOT_Y] += height * up
    controls[RIGHT_FOOT + FOOT_Z] += 0.16 * up
    controls[RIGHT_FOOT + FOOT_X] += 0.03 * up
    controls[RIGHT_FOOT + HEEL] += 30 * up
    for arm, sign in ((LEFT_ARM, 1), (RIGHT_ARM, -1)):
        controls[arm + ABDUCT] += up * (62 + sign * 8 * wobble)
    return controls


def _bow(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    poses = {BEND: (0, 52, 52, 0), PITCH: (0, 24, 24, 0), NOD: (0, 15, 15, 0), Z: (0, -0.1, -0.1, 0)}
    return _keyed(rng.uniform(0.8, 1.1), 2.1 / pace, _repetitions(rng, attributes, 2), (0, 0.42, 0.6, 1), poses)


def _clap(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    count, period = _repetitions(rng, attributes, 6), 0.5 / pace
    controls, t = _stand(period * count + 1.1)
    up = _pulse(t, 0, t[-1], 0.5)
    shut = _hump(_cycle(t, 0.55, period, count) / period, 0.5, 0.5) * (t > 0.55)
    flex, elbow = rng.uniform(28, 42), rng.uniform(62, 74)
    for arm in (LEFT_ARM, RIGHT_ARM):
        controls[arm + FLEX] += up * flex
        controls[arm + ELBOW] += up * elbow
        controls[arm + INWARD] += -14 * up + 50 * shut
    return controls


def _pick_up(rng: np.random.Generator, attributes: MotionAttributes, pace: float) -> np.ndarray:
    poses = {
        Y: (0, -0.36, -0.36, 0, 0, 0),
        Z: (0, -0.14, -0.14, 0, 0, 0),
        BEND: (0, 52, 52, 4, 0, 0),
        PITCH: (0, 34, 34, 0, 0, 0),
        TWIST: (0, -12, -12, 0, 0, 0),
        LEFT_ARM + FLEX: (0, 64, 64, 34, 34, 0),
        LEFT_ARM + ELBOW: (0, -8, -8, 70, 70, 0),
        RIGHT_ARM + FLEX: (0, 20, 20, 0, 0, 0),
        RIGHT_ARM + ELBOW: (0, 45, 45, 0, 0, 0),
    }
    return _keyed(rng.uniform(0.94, 1.03), 3.0 / pace, 1, (0, 0.3, 0.38, 0.7, 0.8, 1), poses)


@dataclass(frozen=True)
class Action:
    """How an action is made and which attributes it can have.

    Args:
        make: writes the controls of the left-sided form.
        sides: what `side` may be.
        counts: what `count` may be.
        distances: what `distance` may be, metres.
        degrees: what `degrees` may be.
        paced: whether it can be slow or fast.
    """

    make: Maker
    sides: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    distances: tuple[int, ...] = ()
    degrees: tuple[int, ...] = ()
    paced: bool = True


_SIDES = ("left", "right")
ACTIONS: dict[str, Action] = {
    "idle": Action(_idle, paced=False),
    "walk": Action(_walk, counts=(2, 3, 4, 5, 6), distances=(2, 3, 4)),
    "run": Action(_run, counts=(5, 6, 7, 8), distances=(4, 5, 6, 7)),
    "walk_backward": Action(_walk_backward, counts=(2, 3, 4, 5, 6), distances=(1, 2, 3)),
    "sidestep": Action(_sidestep, sides=_SIDES, counts=(1, 2, 3, 4)),
    "turn": Action(_turn, sides=_SIDES, degrees=(90, 180)),
    "spin": Action(_spin, sides=_SIDES, counts=(1, 2)),
    "circle": Action(_circle, sides=_SIDES),
    "march": Action(_march),
    "jump": Action(_jump, counts=(1, 2, 3), paced=False),
    "jump_forward": Action(_jump_forward, counts=(1, 2, 3), paced=False),
    "hop": Action(_hop, sides=_SIDES, counts=(2, 3, 4, 5), paced=False),
    "jumping_jack": Action(_jumping_jack, counts=(2, 3, 4, 5), paced=False),
    "squat": Action(_squat, counts=(1, 2, 3)),
    "sit_down": Action(_sit_down),
    "stand_up": Action(_stand_up),
    "lunge": Action(_lunge, sides=_SIDES, counts=(1, 2)),
    "kick": Action(_kick, sides=_SIDES, counts=(1, 2, 3)),
    "punch": Action(_punch, sides=_SIDES, counts=(1, 2, 3, 4)),
    "wave": Action(_wave, sides=(*_SIDES, "both")),
    "raise_arm": Action(_raise_arm, sides=(*_SIDES, "both")),
    "throw": Action(_throw, sides=_SIDES, paced=False),
    "balance": Action(_balance, sides=_SIDES, paced=False),
    "bow": Action(_bow, counts=(1, 2)),
    "clap": Action(_clap, counts=(2, 3, 4, 5, 6)),
    "pick_up": Action(_pick_up, sides=_SIDES),
}
_PACES = {"slow": 0.6, None: 1.0, "fast": 1.6}
_MAY_BE_CUT = ("walk", "run", "walk_backward")


# -------- Clips


def _segment_controls(rng: np.random.Generator, attributes: MotionAttributes) -> np.ndarray:
    pace = _PACES[attributes.speed] * rng.uniform(0.94, 1.06)
    controls = ACTIONS[attributes.action].make(rng, attributes, pace)
    return (controls[_MIRROR_ORDER] * _MIRROR_SIGN) if attributes.side == "right" else controls


def _place_after(controls: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Move a segment so that it starts on the feet the previous one ended on."""
    end = previous[:, -1]
    yaw = (end[LEFT_FOOT + FOOT_YAW] + end[RIGHT_FOOT + FOOT_YAW]) / 2
    sin, cos = np.sin(np.deg2rad(yaw)), np.cos(np.deg2rad(yaw))
    start_x = (end[LEFT_FOOT + FOOT_X] + end[RIGHT_FOOT + FOOT_X]) / 2 - TOE_AHEAD * sin
    start_z = (end[LEFT_FOOT + FOOT_Z] + end[RIGHT_FOOT + FOOT_Z]) / 2 - TOE_AHEAD * cos
    placed = controls.copy()
    for x, z in ((X, Z), (LEFT_FOOT + FOOT_X, LEFT_FOOT + FOOT_Z), (RIGHT_FOOT + FOOT_X, RIGHT_FOOT + FOOT_Z)):
        placed[x] = start_x + controls[x] * cos + controls[z] * sin
        placed[z] = start_z - controls[x] * sin + controls[z] * cos
    placed[[YAW, LEFT_FOOT + FOOT_YAW, RIGHT_FOOT + FOOT_YAW]] += yaw
    return placed


def compose_controls(
    rng: np.random.Generator, segments: Sequence[MotionAttributes], max_frames: int = MAX_FRAMES
) -> tuple[np.ndarray, int]:
    """Control curves of as many of the segments, in order, as fit into a clip.

    Args:
        rng: source of every variation the attributes leave open.
        segments: what to show, one after another; `stand_up` begins on a seat, `sit_down` ends on one.
        max_frames: the longest clip allowed.

    Returns:
        (29, frames) controls, and how many segments they show (0 when the first alone is too long).
    """
    controls: np.ndarray | None = None
    num_shown = 0
    for attributes in segments:
        part = _segment_controls(rng, attributes)
        if controls is not None:
            part = _place_after(part, controls)[:, 1:]
        if part.shape[1] + (0 if controls is None else controls.shape[1]) > max_frames:
            break
        controls = part if controls is None else np.concatenate([controls, part], 1)
        num_shown += 1
    if controls is None:
        return np.zeros((NUM_CHANNELS, 0)), 0
    shown = segments[:num_shown]
    only = shown[0]
    if num_shown == 1 and only.action in _MAY_BE_CUT and only.count is None and only.distance is None:
        # A plain walk may be filmed from any phase of the gait to any other.
        spare = max(0, controls.shape[1] - 2 * MIN_FRAMES)
        first, last = rng.integers(0, min(20, spare // 2) + 1, 2)
        controls = controls[:, first : controls.shape[1] - last]
    before = 0 if shown[0].action == "stand_up" else int(rng.integers(0, 5))
    short = max(0, MIN_FRAMES - controls.shape[1] - before)
    after = min(short + int(rng.integers(0, 5)), max_frames - controls.shape[1])
    before = min(before, max_frames - controls.shape[1] - after)
    return np.concatenate(
        [np.repeat(controls[:, :1], before, 1), controls, np.repeat(controls[:, -1:], after, 1)], 1
    ), num_shown
