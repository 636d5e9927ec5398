"""The network: zero at the start, normalised inputs, half-precision files, results that do not depend on the batch."""

import numpy as np
import pytest
import torch
from torch import nn

from dexcompose_agents.rl.actor_critic import SHORTCUT_GAIN, ActorCritic, DeterministicPolicy
from dexcompose_agents.rl.normalizer import RunningNormalizer


def test_starts_at_zero_residual_with_the_given_spread():
    network = ActorCritic(7, 3)
    mean, value = network(torch.randn(5, 7))
    assert torch.equal(mean, torch.zeros(5, 3))
    assert value.shape == (5,)
    assert torch.equal(network.log_std, torch.full((3,), -1.5))


def test_layers_are_those_of_the_paper():
    kinds = [type(layer) for layer in ActorCritic(7, 3).trunk]
    assert kinds == [nn.LayerNorm, nn.Linear, nn.ELU] * 3
    assert [layer.out_features for layer in ActorCritic(7, 3).trunk if isinstance(layer, nn.Linear)] == [256, 256, 128]


def test_log_prob_and_entropy_are_the_gaussians():
    network = ActorCritic(4, 3)
    nn.init.normal_(network.log_std)
    mean, action = torch.randn(6, 3), torch.randn(6, 3)
    reference = torch.distributions.Normal(mean, network.log_std.exp())
    torch.testing.assert_close(network.log_prob(mean, action), reference.log_prob(action).sum(-1))
    torch.testing.assert_close(network.entropy(), reference.entropy().sum(-1)[0])


def test_a_shortcut_leads_from_some_columns_to_the_mean(tmp_path):
    network = ActorCritic(5, 2, (8,), shortcut=(3, 5))
    network.normalizer.update(torch.randn(1000, 5))
    assert not network.mean(torch.ones(1, 5)).any(), "nothing at the start, as without"
    torch.nn.init.constant_(network.direct_layer.weight, 0.5)
    moved = torch.eye(5)
    said = network.mean(moved) - network.mean(torch.zeros(5, 5))
    assert not said[:3].any()
    expected = SHORTCUT_GAIN * 0.5 / network.normalizer.std[3:, None].float().expand(2, 2)
    torch.testing.assert_close(said[3:], expected, rtol=1e-4, atol=1e-4)
    network.save(tmp_path / "a.safetensors", {"kind": "residual_b"})
    loaded, _ = ActorCritic.load(tmp_path / "a.safetensors", "residual_b")
    assert loaded.shortcut == (3, 5)
    torch.testing.assert_close(loaded.mean(moved), network.mean(moved), rtol=1e-2, atol=1e-2)
    loaded.silence()
    assert not loaded.mean(moved).any()


def test_normalizer_equals_statistics_of_all_data():
    torch.manual_seed(0)
    data = torch.randn(1000, 3, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([5.0, -3.0, 0.0])
    normalizer = RunningNormalizer(3)
    for part in data.split([1, 99, 400, 500]):
        normalizer.update(part)
    torch.testing.assert_close(normalizer.mean, data.mean(0))
    torch.testing.assert_close(normalizer.variance, data.var(0, correction=0))
    result = normalizer(data.float())
    assert result.std(0).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=0.05)


def test_constant_component_cannot_blow_up():
    normalizer = RunningNormalizer(1)
    normalizer.update(torch.full((50, 1), 2.0))
    assert normalizer(torch.tensor([[2.0]])).item() == 0.0
    assert abs(normalizer(torch.tensor([[1e6]])).item()) <= 5.0


def _trained(observation_size=40, action_size=22):
    torch.manual_seed(1)
    network = ActorCritic(observation_size, action_size)
    nn.init.normal_(network.mean_layer.weight, std=0.3)
    network.normalizer.update(torch.randn(500, observation_size) * 0.02 + 0.9)
    return network


def test_file_keeps_the_policy(tmp_path):
    network = _trained()
    path = tmp_path / "policy.safetensors"
    network.save(path, {"kind": "stabiliser"})
    restored, manifest = ActorCritic.load(path, "stabiliser")
    assert manifest["kind"] == "stabiliser"
    observation = torch.randn(64, 40) * 0.02 + 0.9
    # Half precision has 11 bits: results agree to about a per mille of their size, which is of order one.
    torch.testing.assert_close(restored.mean(observation), network.mean(observation), atol=0.02, rtol=0.01)
    assert path.stat().st_size < 400_000


def test_going_on_from_a_file_keeps_what_the_normaliser_has_seen(tmp_path):
    network = ActorCritic(1, 1, hidden=(4,))
    network.normalizer.update(torch.tensor([[0.0], [2.0], [4.0], [2.0], [2.0], [2.0], [2.0], [2.0]]))  # mean 2
    network.save(tmp_path / "new.safetensors", {"kind": "stabiliser"})
    restored, _ = ActorCritic.load(tmp_path / "new.safetensors", "stabiliser")
    restored.normalizer.update(torch.tensor([[12.0], [12.0]]))
    # (8 * 2 + 2 * 12) / 10 = 4; had the file forgotten the 8, the mean would be 12.
    assert restored.normalizer.mean.item() == pytest.approx(4.0)
    assert restored.normalizer.count.item() == 10.0


def test_tracking_returns_by_hand():
    network = ActorCritic(3, 2, hidden=(4,))
    observation, value_layer = torch.randn(5, 3), network.value_layer
    with torch.no_grad():
        value_layer.weight.fill_(3.0)
        value_layer.bias.fill_(0.5)
    # The first batch sets the scale: mean 10 and, of two numbers 2 apart on either side, deviation sqrt(8) = 2.828427.
    network.track_returns(torch.tensor([8.0, 12.0]))
    assert [network.return_mean.item(), network.return_std.item()] == pytest.approx([10.0, 2.828427])
    # What it predicts stays: bias (0.5 * 1 + 0 - 10) / 2.828427 = -3.358757, weights 3 / 2.828427 = 1.060660.
    assert value_layer.bias.item() == pytest.approx(-3.358757)
    assert value_layer.weight[0].tolist() == pytest.approx([1.060660] * 4)
    before = network(observation)[1]
    # Later ones move it by a tenth: mean 10 + 0.1 * (4 - 10) = 9.4, deviation 2.828427 + 0.1 * (1.414214 - 2.828427).
    network.track_returns(torch.tensor([3.0, 5.0]))
    assert [network.return_mean.item(), network.return_std.item()] == pytest.approx([9.4, 2.687006])
    # Bias (-3.358757 * 2.828427 + 10 - 9.4) / 2.687006 = -8.9 / 2.687006 = -3.312236.
    assert value_layer.bias.item() == pytest.approx(-3.312236)
    torch.testing.assert_close(network(observation)[1], before)


def test_file_of_something_else_is_refused(tmp_path):
    from dexcompose_agents.artefacts.weights import save_weights

    save_weights(tmp_path / "other.safetensors", {"x": torch.zeros(3)}, {"kind": "diffusion"})
    with pytest.raises(ValueError, match="kind is 'diffusion'; expected 'stabiliser'"):
        ActorCritic.load(tmp_path / "other.safetensors", "stabiliser")


@pytest.mark.parametrize("batch", [1, 3, 17, 64])
def test_result_of_a_row_does_not_depend_on_the_batch(batch):
    policy = DeterministicPolicy(_trained())
    observations = torch.randn(64, 40) * 0.02 + 0.9
    whole = policy(observations)
    parts = torch.cat([policy(part) for part in observations.split(batch)])
    assert np.array_equal(whole.numpy(), parts.numpy())
