"""Models that were made for HumanML3D's 263 features know where root, positions and contacts are in other widths."""

import pytest
import torch

from geomotiongpt import (
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTokenizer,
    MotionTokenizerConfig,
    MotionVAE,
    MotionVAEConfig,
    get_motion_representation,
)

REPRESENTATIONS = ("humanml3d", "kitml", "streaming272")


def groups_of(name: str) -> tuple[int, list[bool], list[bool]]:
    """Width of a frame, and which features are the root's and which are joint positions."""
    facts = get_motion_representation(name)
    slices, kinds = facts.feature_slices, [""] * facts.num_features
    for group, part in slices.items():
        kinds[part] = [group] * (part.stop - part.start)
    roots = ("root_yaw", "root_velocity", "root_height", "heading_change")
    return facts.num_features, [kind in roots for kind in kinds], [kind == "positions" for kind in kinds]


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_tokenizer_weighs_root_and_positions(name):
    width, root, positions = groups_of(name)
    sizes = {"num_features": width, "num_codes": 8, "code_dim": 8, "hidden_size": 8}
    model = MotionTokenizer(MotionTokenizerConfig(**sizes, root_weight=100.0, position_weight=10.0))
    values = torch.zeros(1, 8, width, requires_grad=True)
    model._reconstruction_loss(values, torch.ones(1, 8, width), torch.ones(1, 8, dtype=torch.bool)).backward()
    expected = torch.where(torch.tensor(root), 100.0, torch.where(torch.tensor(positions), 10.0, 1.0))
    found = values.grad[0, 0] / values.grad[0, 0].abs().min()
    torch.testing.assert_close(-found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_vae_measures_root_and_positions(name):
    width, root, positions = groups_of(name)
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "latent_dim": 8, "num_heads": 2, "intermediate_size": 8}
    model = MotionVAE(MotionVAEConfig(num_features=width, **sizes)).eval()
    motion = torch.randn(2, 12, width)
    output = model(motion)
    error = torch.nn.functional.smooth_l1_loss(output.motion_values, motion, reduction="none")
    for part, chosen in (("root_loss", root), ("position_loss", positions)):
        torch.testing.assert_close(output[part], error[..., torch.tensor(chosen)].mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "unseen"), [("humanml3d", 4), ("kitml", 4), ("streaming272", 0)])
def test_the_evaluator_looks_at_all_but_contacts(name, unseen):
    """In 272 features, which have none, the last ones are the rotation of a wrist."""
    width = groups_of(name)[0]
    sizes = {"movement_hidden_size": 8, "movement_size": 8, "motion_hidden_size": 8, "text_hidden_size": 8}
    torch.manual_seed(0)
    model = MotionTextEvaluator(MotionTextEvaluatorConfig(num_features=width, **sizes, embedding_size=8)).eval()
    motion = torch.randn(1, 16, width, requires_grad=True)
    model.get_motion_features(motion).square().sum().backward()
    assert (motion.grad[0].abs().sum(0) == 0).tolist() == [False] * (width - unseen) + [True] * unseen
