import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.diffusion.config import NetworkConfig, preset
from dexcompose_agents.diffusion.unet import ChannelNorm, FilmUnet, StepEmbedding, TimeConv, TimeGrow
from dexcompose_agents.runtime.compute import PRESETS
from dexcompose_envs.errors import UsageError
from dexcompose_envs.skills import make_skill, skill_names

SMALL = NetworkConfig(widths=(16, 24), step_embedding_size=8, observation_embedding_size=12)


@pytest.mark.parametrize("fold", [1, 2, 4])
@pytest.mark.parametrize("widths", [(16,), (16, 24), (8, 16, 24)])
@pytest.mark.parametrize("blocks", [1, 2])
def test_output_has_the_shape_of_the_actions(fold, widths, blocks):
    config = dataclasses.replace(SMALL, fold=fold, widths=widths, blocks_per_level=blocks)
    network = FilmUnet(28, 70, config)
    out = network(torch.randn(3, 32, 28), torch.tensor([0, 5, 99]), torch.randn(3, 70))
    assert out.shape == (3, 32, 28)


def test_every_weight_gets_a_gradient():
    network = FilmUnet(28, 70, SMALL)
    network(torch.randn(2, 32, 28), torch.tensor([3, 50]), torch.randn(2, 70)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_compact_network_fits_into_a_megabyte_and_paper_network_is_large():
    def count_weights(name, observation_size):
        with torch.device("meta"):
            network = FilmUnet(28, 2 * observation_size, preset(name).network)
        return sum(parameter.numel() for parameter in network.parameters())

    assert 2 * count_weights("cpu", 40) < 1.05e6
    assert preset("paper").network.widths == (256, 512, 1024)
    assert 50e6 < count_weights("paper", 35) < 100e6


def test_step_embedding_starts_with_the_plain_sinusoids():
    # size 4: frequencies 1 and 1e-4; step 2 -> sin 2, sin 2e-4, cos 2, cos 2e-4.
    embedding = StepEmbedding(4)
    embedding.layers = torch.nn.Identity()
    expected = torch.tensor([[0.909297, 0.0002, -0.416147, 1.0]])
    torch.testing.assert_close(embedding(torch.tensor([2])), expected, atol=1e-5, rtol=0)


def assert_same_layer(ours, torchs, x):
    """Same first weights, same result and same gradients; ours has time before channels."""
    torchs.load_state_dict(ours.state_dict())
    theirs, mine = x.clone().requires_grad_(), x.transpose(1, 2).clone().requires_grad_()
    expected, got = torchs(theirs), ours(mine).transpose(1, 2)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    direction = torch.randn(expected.shape)
    expected.mul(direction).sum().backward()
    got.mul(direction).sum().backward()
    torch.testing.assert_close(mine.grad.transpose(1, 2), theirs.grad, atol=1e-4, rtol=1e-3)
    for parameter, value in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, value.grad, atol=1e-4, rtol=1e-3)


@given(
    length=st.integers(1, 9), batch=st.integers(1, 3), sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.sampled_from([1, 3, 5]), stride=st.integers(1, 2),
)  # fmt: skip
def test_convolution_is_that_of_torch(length, batch, sizes, kernel, stride):
    torchs = torch.nn.Conv1d(*sizes, kernel, stride, padding=kernel // 2)
    assert_same_layer(TimeConv(*sizes, kernel, stride), torchs, torch.randn(batch, sizes[0], length))


@given(length=st.integers(1, 5), batch=st.integers(1, 3), channels=st.integers(1, 5))
def test_transposed_convolution_is_that_of_torch(length, batch, channels):
    torchs = torch.nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)
    assert_same_layer(TimeGrow(channels), torchs, torch.randn(batch, channels, length))


@given(length=st.integers(1, 5), batch=st.integers(1, 3), groups=st.integers(1, 3))
def test_normalisation_is_that_of_torch(length, batch, groups):
    x = torch.randn(batch, 4 * groups, length)
    assert_same_layer(ChannelNorm(groups, 4 * groups), torch.nn.GroupNorm(groups, 4 * groups), x)


def test_both_conditions_matter():
    network = FilmUnet(28, 70, SMALL).eval()
    actions, step, observation = torch.randn(1, 32, 28), torch.tensor([10]), torch.randn(1, 70)
    with torch.inference_mode():
        base = network(actions, step, observation)
        assert not torch.allclose(base, network(actions, step + 50, observation))
        assert not torch.allclose(base, network(actions, step, observation + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (20,)}, r"widths is \(20,\)"),
        ({"widths": ()}, "widths"),
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd number"),
        ({"action_horizon": 20}, "action_horizon is 20; expected a multiple of 8"),
        ({"execute_steps": 32}, "execute_steps is 32; expected at most 31"),
        ({"stagger_groups": 17}, "stagger_groups is 17"),
        ({"inference_steps": 7}, "inference_steps is 7; expected a divisor of diffusion_steps = 100"),
        ({"fold": 0}, "fold is 0"),
        ({"prediction": "score"}, "prediction is 'score'"),
        ({"step_embedding_size": 7}, "step_embedding_size is 7"),
    ],
)
def test_impossible_settings_are_refused_with_value_and_expectation(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_take_from_the_skill_what_is_the_skills(name):
    assert preset(name).network.execute_steps == 16
    for skill in map(make_skill, skill_names()):
        config = preset(name, skill.name)
        assert config.network.execute_steps == skill.EXECUTE_STEPS
        assert config.finger_dropout == (skill.FINGER_DROPOUT if name in ("cpu", "fast") else 0.0)


def test_steps_executed_and_dropout_as_published():
    known = {"GraspBall": (8, 0.0), "PickStick": (16, 0.0), "PushButton": (16, 0.5)}
    found = {skill: preset("cpu", skill) for skill in known}
    assert {skill: (c.network.execute_steps, c.finger_dropout) for skill, c in found.items()} == known


def test_fast_is_cpu_on_a_gpu():
    changed = {"device": "cuda", "precision": "bfloat16", "batch_size": 1024}
    assert preset("fast", "PushButton") == dataclasses.replace(preset("cpu", "PushButton"), **changed)


def test_unknown_preset_and_skill():
    with pytest.raises(UsageError, match="unknown preset 'gpu'; expected one of cpu, fast, paper, test"):
        preset("gpu")
    with pytest.raises(UsageError, match="unknown skill 'Juggle'"):
        preset("cpu", "Juggle")
