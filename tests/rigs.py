"""Small rigs in the naming styles that people meet, all of one body that walks; for the tests of the import.

A rig is a table: one joint a line, its name, the joint it hangs from (`-` for a root) and its place: that of a joint
of the body, or `a~b` for the middle of two. Lines with a brace stand for both sides: {S} is Left or Right, {L} is L or
R, {l} is l or r, {s} is left or right.
"""

import numpy as np
from more_rigs import MORE_FAMILIES

from geomotiongpt import Bvh

# Centimetres, y up, facing +z; the left side, which has x > 0.
BODY = {
    "hips": (0, 95, 0),
    "spine1": (0, 107, -1),
    "spine2": (0, 121, 0),
    "spine3": (0, 126, 0),
    "neck": (0, 147, -2),
    "head": (0, 158, 2),
    "top": (0, 178, 2),
    "hip": (9, 88, 0),
    "knee": (9.5, 49, 1),
    "ankle": (9, 9, -3),
    "toe": (9.5, 2, 10),
    "tip": (9.5, 1, 17),
    "collar": (6, 143, 0),
    "shoulder": (18, 143, -2),
    "elbow": (45, 143, -3),
    "wrist": (70, 143, -3),
    "fingers": (85, 143, -3),
}
# What each joint of the skeleton is called in the table of a family, where it is not interpolated.
FAMILIES = {
    "mixamo": """
        mixamorig:Hips - hips
        mixamorig:Spine mixamorig:Hips spine1
        mixamorig:Spine1 mixamorig:Spine spine2
        mixamorig:Spine2 mixamorig:Spine1 spine2~neck
        mixamorig:Neck mixamorig:Spine2 neck
        mixamorig:Head mixamorig:Neck head
        mixamorig:HeadTop_End mixamorig:Head top
        mixamorig:{S}Shoulder mixamorig:Spine2 collar
        mixamorig:{S}Arm mixamorig:{S}Shoulder shoulder
        mixamorig:{S}ForeArm mixamorig:{S}Arm elbow
        mixamorig:{S}Hand mixamorig:{S}ForeArm wrist
        mixamorig:{S}HandThumb1 mixamorig:{S}Hand fingers
        mixamorig:{S}UpLeg mixamorig:Hips hip
        mixamorig:{S}Leg mixamorig:{S}UpLeg knee
        mixamorig:{S}Foot mixamorig:{S}Leg ankle
        mixamorig:{S}ToeBase mixamorig:{S}Foot toe
        mixamorig:{S}Toe_End mixamorig:{S}ToeBase tip""",
    "biped": """
        Bip01 - hips
        Bip01_Pelvis Bip01 hips
        Bip01_Spine Bip01_Pelvis hips~spine1
        Bip01_Spine1 Bip01_Spine spine2
        Bip01_Neck Bip01_Spine1 neck
        Bip01_Head Bip01_Neck head
        Bip01_HeadNub Bip01_Head top
        Bip01_{L}_Clavicle Bip01_Neck collar
        Bip01_{L}_UpperArm Bip01_{L}_Clavicle shoulder
        Bip01_{L}_Forearm Bip01_{L}_UpperArm elbow
        Bip01_{L}_ForeTwist Bip01_{L}_Forearm elbow~wrist
        Bip01_{L}_Hand Bip01_{L}_Forearm wrist
        Bip01_{L}_Finger0 Bip01_{L}_Hand fingers
        Bip01_{L}_Thigh Bip01_Spine hip
        Bip01_{L}_Calf Bip01_{L}_Thigh knee
        Bip01_{L}_Foot Bip01_{L}_Calf ankle
        Bip01_{L}_Toe0 Bip01_{L}_Foot toe
        Bip01_{L}_Toe0Nub Bip01_{L}_Toe0 tip""",
    "cmu": """
        Hips - hips
        {L}HipJoint Hips hips
        {S}UpLeg {L}HipJoint hip
        {S}Leg {S}UpLeg knee
        {S}Foot {S}Leg ankle
        {S}ToeBase {S}Foot toe
        LowerBack Hips hips
        Spine LowerBack hips~spine2
        Spine1 Spine spine2~neck
        Neck Spine1 neck
        Neck1 Neck neck~head
        Head Neck1 head
        {S}Shoulder Spine1 neck
        {S}Arm {S}Shoulder shoulder
        {S}ForeArm {S}Arm elbow
        {S}Hand {S}ForeArm wrist
        {S}FingerBase {S}Hand fingers
        {L}Thumb {S}Hand fingers""",
    "rigify": """
        spine - hips
        pelvis.{L} spine hips~hip
        thigh.{L} spine hip
        shin.{L} thigh.{L} knee
        foot.{L} shin.{L} ankle
        toe.{L} foot.{L} toe
        heel.02.{L} foot.{L} ankle~toe
        spine.001 spine spine1
        spine.002 spine.001 spine2
        spine.003 spine.002 spine2~neck
        breast.{L} spine.003 collar
        shoulder.{L} spine.003 collar
        upper_arm.{L} shoulder.{L} shoulder
        forearm.{L} upper_arm.{L} elbow
        hand.{L} forearm.{L} wrist
        thumb.01.{L} hand.{L} fingers
        spine.004 spine.003 neck
        spine.005 spine.004 neck~head
        spine.006 spine.005 head""",
    "character_creator": """
        RL_BoneRoot - -
        CC_Base_Hip RL_BoneRoot hips
        CC_Base_Pelvis CC_Base_Hip hips
        CC_Base_{L}_Thigh CC_Base_Pelvis hip
        CC_Base_{L}_ThighTwist01 CC_Base_{L}_Thigh hip
        CC_Base_{L}_Calf CC_Base_{L}_Thigh knee
        CC_Base_{L}_KneeShareBone CC_Base_{L}_Calf knee
        CC_Base_{L}_Foot CC_Base_{L}_Calf ankle
        CC_Base_{L}_ToeBaseShareBone CC_Base_{L}_Foot toe
        CC_Base_{L}_ToeBase CC_Base_{L}_Foot toe
        CC_Base_{L}_BigToe1 CC_Base_{L}_ToeBase tip
        CC_Base_Waist CC_Base_Hip spine1
        CC_Base_Spine01 CC_Base_Waist spine2
        CC_Base_Spine02 CC_Base_Spine01 spine2~neck
        CC_Base_NeckTwist01 CC_Base_Spine02 neck
        CC_Base_NeckTwist02 CC_Base_NeckTwist01 neck~head
        CC_Base_Head CC_Base_NeckTwist02 head
        CC_Base_JawRoot CC_Base_Head top
        CC_Base_{L}_Eye CC_Base_Head top
        CC_Base_{L}_Clavicle CC_Base_Spine02 collar
        CC_Base_{L}_Upperarm CC_Base_{L}_Clavicle shoulder
        CC_Base_{L}_UpperarmTwist01 CC_Base_{L}_Upperarm shoulder
        CC_Base_{L}_Forearm CC_Base_{L}_Upperarm elbow
        CC_Base_{L}_ForearmTwist01 CC_Base_{L}_Forearm elbow
        CC_Base_{L}_Hand CC_Base_{L}_Forearm wrist
        CC_Base_{L}_Mid1 CC_Base_{L}_Hand fingers""",
    "smpl": """
        Pelvis - hips
        {L}_Hip Pelvis hip
        {L}_Knee {L}_Hip knee
        {L}_Ankle {L}_Knee ankle
        {L}_Foot {L}_Ankle toe
        Spine1 Pelvis spine1
        Spine2 Spine1 spine2
        Spine3 Spine2 spine3
        Neck Spine3 neck
        Head Neck head
        {L}_Collar Spine3 collar
        {L}_Shoulder {L}_Collar shoulder
        {L}_Elbow {L}_Shoulder elbow
        {L}_Wrist {L}_Elbow wrist
        {L}_Hand {L}_Wrist fingers""",
    "xsens": """
        Pelvis - hips
        L5 Pelvis hips~spine1
        L3 L5 spine1
        T12 L3 spine1~spine2
        T8 T12 spine2
        Neck T8 neck
        Head Neck head
        {S}Shoulder T8 collar
        {S}UpperArm {S}Shoulder shoulder
        {S}ForeArm {S}UpperArm elbow
        {S}Hand {S}ForeArm wrist
        {S}UpperLeg Pelvis hip
        {S}LowerLeg {S}UpperLeg knee
        {S}Foot {S}LowerLeg ankle
        {S}Toe {S}Foot toe""",
    "rokoko": """
        Hips - hips
        Spine Hips spine1
        Chest Spine spine2
        Neck Chest neck
        Head Neck head
        {S}Shoulder Chest collar
        {S}Arm {S}Shoulder shoulder
        {S}Forearm {S}Arm elbow
        {S}Hand {S}Forearm wrist
        {S}Thigh Hips hip
        {S}Shin {S}Thigh knee
        {S}Foot {S}Shin ankle
        {S}Toe {S}Foot toe
        {S}ToeEnd {S}Toe tip""",
    "unreal": """
        root - -
        pelvis root hips
        spine_01 pelvis spine1
        spine_02 spine_01 spine2
        spine_03 spine_02 spine3
        spine_04 spine_03 spine3~neck
        neck_01 spine_04 neck
        neck_02 neck_01 neck~head
        head neck_02 head
        clavicle_{l} spine_04 collar
        upperarm_{l} clavicle_{l} shoulder
        upperarm_twist_01_{l} upperarm_{l} shoulder~elbow
        lowerarm_{l} upperarm_{l} elbow
        lowerarm_twist_01_{l} lowerarm_{l} elbow~wrist
        hand_{l} lowerarm_{l} wrist
        index_01_{l} hand_{l} fingers
        weapon_{l} hand_{l} fingers
        thigh_{l} pelvis hip
        thigh_twist_01_{l} thigh_{l} hip~knee
        calf_{l} thigh_{l} knee
        foot_{l} calf_{l} ankle
        ball_{l} foot_{l} toe
        ik_foot_root root -
        ik_foot_{l} ik_foot_root ankle
        ik_hand_root root -
        ik_hand_{l} ik_hand_root wrist""",
    "daz": """
        hip - hips
        pelvis hip hips
        {l}ThighBend pelvis hip
        {l}ThighTwist {l}ThighBend hip~knee
        {l}Shin {l}ThighTwist knee
        {l}Foot {l}Shin ankle
        {l}Metatarsals {l}Foot ankle~toe
        {l}Toe {l}Metatarsals toe
        {l}BigToe {l}Toe tip
        abdomenLower hip hips~spine1
        abdomenUpper abdomenLower spine1
        chestLower abdomenUpper spine2
        chestUpper chestLower spine2~neck
        neckLower chestUpper neck
        neckUpper neckLower neck~head
        head neckUpper head
        {l}Collar chestUpper collar
        {l}ShldrBend {l}Collar shoulder
        {l}ShldrTwist {l}ShldrBend shoulder~elbow
        {l}ForearmBend {l}ShldrTwist elbow
        {l}ForearmTwist {l}ForearmBend elbow~wrist
        {l}Hand {l}ForearmTwist wrist
        {l}Index1 {l}Hand fingers""",
    "biovision": """
        Hips - hips
        {S}Hip Hips hip
        {S}Knee {S}Hip knee
        {S}Ankle {S}Knee ankle
        Chest Hips spine1
        Chest2 Chest spine3
        {S}Collar Chest2 collar
        {S}Shoulder {S}Collar shoulder
        {S}Elbow {S}Shoulder elbow
        {S}Wrist {S}Elbow wrist
        Neck Chest2 neck
        Head Neck head""",
    "kinect": """
        SpineBase - hips
        SpineMid SpineBase spine2
        SpineShoulder SpineMid spine3~neck
        Neck SpineShoulder neck
        Head Neck head
        Shoulder{S} SpineShoulder shoulder
        Elbow{S} Shoulder{S} elbow
        Wrist{S} Elbow{S} wrist
        Hand{S} Wrist{S} wrist~fingers
        HandTip{S} Hand{S} fingers
        Hip{S} SpineBase hip
        Knee{S} Hip{S} knee
        Ankle{S} Knee{S} ankle
        Foot{S} Ankle{S} toe""",
    "vrm": """
        J_Bip_C_Hips - hips
        J_Bip_C_Spine J_Bip_C_Hips spine1
        J_Bip_C_Chest J_Bip_C_Spine spine2
        J_Bip_C_UpperChest J_Bip_C_Chest spine2~neck
        J_Bip_C_Neck J_Bip_C_UpperChest neck
        J_Bip_C_Head J_Bip_C_Neck head
        J_Sec_Hair1 J_Bip_C_Head top
        J_Bip_{L}_Shoulder J_Bip_C_UpperChest collar
        J_Bip_{L}_UpperArm J_Bip_{L}_Shoulder shoulder
        J_Bip_{L}_LowerArm J_Bip_{L}_UpperArm elbow
        J_Bip_{L}_Hand J_Bip_{L}_LowerArm wrist
        J_Bip_{L}_UpperLeg J_Bip_C_Hips hip
        J_Bip_{L}_LowerLeg J_Bip_{L}_UpperLeg knee
        J_Bip_{L}_Foot J_Bip_{L}_LowerLeg ankle
        J_Bip_{L}_ToeBase J_Bip_{L}_Foot toe""",
    "optitrack": """
        Skeleton-001_Hip - hips
        Skeleton-001_Ab Skeleton-001_Hip spine1
        Skeleton-001_Chest Skeleton-001_Ab spine2
        Skeleton-001_Neck Skeleton-001_Chest neck
        Skeleton-001_Head Skeleton-001_Neck head
        Skeleton-001_{L}Shoulder Skeleton-001_Chest collar
        Skeleton-001_{L}UArm Skeleton-001_{L}Shoulder shoulder
        Skeleton-001_{L}FArm Skeleton-001_{L}UArm elbow
        Skeleton-001_{L}Hand Skeleton-001_{L}FArm wrist
        Skeleton-001_{L}Thigh Skeleton-001_Hip hip
        Skeleton-001_{L}Shin Skeleton-001_{L}Thigh knee
        Skeleton-001_{L}Foot Skeleton-001_{L}Shin ankle
        Skeleton-001_{L}Toe Skeleton-001_{L}Foot toe""",
    "poser": """
        hip - hips
        abdomen hip spine1
        chest abdomen spine2
        neck chest neck
        head neck head
        {s}Eye head top
        {l}Collar chest collar
        {l}Shldr {l}Collar shoulder
        {l}ForeArm {l}Shldr elbow
        {l}Hand {l}ForeArm wrist
        {l}Buttock hip hip
        {l}Thigh {l}Buttock hip
        {l}Shin {l}Thigh knee
        {l}Foot {l}Shin ankle""",
    "makehuman": """
        root - hips
        pelvis.{L} root hip
        upperleg01.{L} pelvis.{L} hip
        upperleg02.{L} upperleg01.{L} hip~knee
        lowerleg01.{L} upperleg02.{L} knee
        lowerleg02.{L} lowerleg01.{L} knee~ankle
        foot.{L} lowerleg02.{L} ankle
        toe1-1.{L} foot.{L} toe
        spine05 root hips~spine1
        spine04 spine05 spine1
        spine03 spine04 spine2
        spine02 spine03 spine3
        spine01 spine02 spine3~neck
        neck01 spine01 neck
        neck02 neck01 neck~head
        head neck02 head
        clavicle.{L} spine01 collar
        shoulder01.{L} clavicle.{L} collar~shoulder
        upperarm01.{L} shoulder01.{L} shoulder
        upperarm02.{L} upperarm01.{L} shoulder~elbow
        lowerarm01.{L} upperarm02.{L} elbow
        lowerarm02.{L} lowerarm01.{L} elbow~wrist
        wrist.{L} lowerarm02.{L} wrist
        finger1-1.{L} wrist.{L} fingers""",
}
FAMILIES |= MORE_FAMILIES
# The joints of the skeleton by their place on the body.
PLACES = {
    "hip": "hip",
    "knee": "knee",
    "ankle": "ankle",
    "shoulder": "shoulder",
    "elbow": "elbow",
    "wrist": "wrist",
    "head": "head",
    "pelvis": "hips",
    "neck": "neck",
}
_SINK = 4.0
_TOES = np.array([0, -7.0, 20.0])  # from the ankle
_SIDES = (("left", "Left", "L", "l", 1), ("right", "Right", "R", "r", -1))


def make_rig(
    family: str, num_frames: int = 40, *, order: str = "ZXY", end_sites: bool = True, moving_joints: bool = False
) -> Bvh:
    """A rig of a family that walks ahead along z, at 30 frames per second, its arms hanging.

    Args:
        family: key of `FAMILIES`.
        num_frames: length.
        order: of the rotation channels.
        end_sites: whether joints that hold no other have an end site, a little further along.
        moving_joints: whether every joint has position channels.
    """
    rows = _rows(FAMILIES[family])
    names, parents, places, bends = [], [], [], []
    for name, parent, place, sign in _parents_first(rows):
        names.append(name)
        parents.append(-1 if parent == "-" else names.index(parent))
        places.append(_place(place, sign))
        bends.append((place, sign))
    places = np.array(places, np.float64)
    offsets = np.array([place - (places[p] if p >= 0 else 0) for place, p in zip(places, parents, strict=True)])
    moved = offsets[0] + np.arange(num_frames)[:, None] * np.array([0, 0, 4.0])
    moved[:, 1] -= _SINK * np.sin(2 * np.pi * np.arange(num_frames) / 30) ** 2  # while the feet are apart
    seen: set[tuple[str, int]] = set()
    turns = np.zeros((num_frames, len(names), 3))
    for joint, key in enumerate(bends):
        if key not in seen and (parents[joint] < 0 or bends[parents[joint]] != key):
            seen.add(key)
            turns[:, joint] = _turns(*key, order, num_frames)
    leaves = [joint for joint in range(len(names)) if joint not in parents] if end_sites else []
    ends = np.array([_TOES if bends[leaf][0] == "ankle" else offsets[leaf] * 0.5 for leaf in leaves]).reshape(-1, 3)
    bvh = Bvh.from_rotations(
        names, parents, offsets, moved, turns, 1 / 30, order=order, end_parents=leaves, end_offsets=ends
    )
    return with_moving_joints(bvh) if moving_joints else bvh


def with_moving_joints(bvh: Bvh) -> Bvh:
    """The same motion with position channels on every joint, which repeat its offset."""
    moves = ("Xposition", "Yposition", "Zposition")
    values, channels, start = [], [], 0
    for joint, names in enumerate(bvh.channels):
        own = bvh.values[:, start : start + len(names)]
        start += len(names)
        if bvh.parents[joint] >= 0:
            values.append(np.repeat(bvh.offsets[joint][None], bvh.num_frames, axis=0))
        values.append(own)
        channels.append(names if bvh.parents[joint] < 0 else (*moves, *names))
    return Bvh(
        bvh.names,
        bvh.parents,
        bvh.offsets,
        tuple(channels),
        bvh.frame_time,
        np.concatenate(values, axis=1),
        bvh.end_parents,
        bvh.end_offsets,
    )


def body_positions(num_frames: int = 40) -> np.ndarray:
    """The walk as the 22 joints of "humanml3d", centimetres, by way of the family "smpl"."""
    bvh = make_rig("smpl", num_frames)
    order = ["Pelvis", "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle", "Spine3"]
    order += ["L_Foot", "R_Foot", "Neck", "L_Collar", "R_Collar", "Head", "L_Shoulder", "R_Shoulder"]
    order += ["L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist"]
    return bvh.joint_positions()[:, [bvh.names.index(name) for name in order]]


def _rows(table: str) -> list[tuple[str, str, str, int]]:
    rows = []
    for line in table.split("\n"):
        if line.strip():
            name, parent, place = line.split()
            if "{" not in line:
                rows.append((name, parent, place, 0))
                continue
            for side, word, letter, small, sign in _SIDES:
                marks = {"S": word, "L": letter, "l": small, "s": side}
                rows.append((name.format(**marks), parent.format(**marks), place, sign))
    return rows


def _parents_first(rows: list[tuple[str, str, str, int]]) -> list[tuple[str, str, str, int]]:
    children: dict[str, list] = {}
    for row in rows:
        children.setdefault(row[1], []).append(row)
    ordered = []
    pending = list(reversed(children["-"]))
    while pending:
        row = pending.pop()
        ordered.append(row)
        pending += reversed(children.get(row[0], []))
    assert len(ordered) == len(rows)
    return ordered


def _place(place: str, sign: int) -> np.ndarray:
    if place == "-":
        return np.zeros(3)
    spot = np.mean([BODY[part] for part in place.split("~")], axis=0)
    return spot * np.array([sign or 1, 1, 1])


def _turns(place: str, sign: int, order: str, num_frames: int) -> np.ndarray:
    """Degrees about the axes of `order`."""
    phase = 2 * np.pi * np.arange(num_frames) / 30 + (0 if sign > 0 else np.pi)
    about = {"X": np.zeros(num_frames), "Y": np.zeros(num_frames), "Z": np.zeros(num_frames)}
    if place == "hip":
        about["X"] = -25 * np.sin(phase)
    elif place == "knee":
        about["X"] = 25 - 20 * np.cos(phase)
    elif place == "shoulder":
        about["Z"] = np.full(num_frames, -75.0 * sign)
    elif place == "elbow":
        about["Y"] = -15.0 * sign + 0 * phase
    return np.stack([about[axis] for axis in order], axis=1)
