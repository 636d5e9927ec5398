import dataclasses

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from dexcompose_agents.diffusion.config import EXECUTE_STEPS, NetworkConfig, compact_network, paper_network, preset
from dexcompose_agents.diffusion.sampler import ChunkSampler, make_scheduler
from dexcompose_agents.diffusion.unet import FilmUnet, StepEmbedding, count_parameters

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


def test_compact_network_fits_into_three_megabytes_and_paper_network_is_large():
    assert 2 * count_parameters(FilmUnet(28, 2 * 37, compact_network())) < 2.9e6
    with torch.device("meta"):
        paper = FilmUnet(28, 2 * 35, paper_network())
    assert paper_network().widths == (256, 512, 1024)
    assert 50e6 < count_parameters(paper) < 100e6


def test_step_embedding_starts_with_the_plain_sinusoids():
    # size 4: frequencies 1 and 1e-4; step 2 -> sin 2, sin 2e-4, cos 2, cos 2e-4.
    embedding = StepEmbedding(4)
    embedding.layers = torch.nn.Identity()
    expected = torch.tensor([[0.909297, 0.0002, -0.416147, 1.0]])
    torch.testing.assert_close(embedding(torch.tensor([2])), expected, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("name", ["cpu", "paper", "tiny"])
@pytest.mark.parametrize("skill", [None, *EXECUTE_STEPS])
def test_presets_exist_for_every_skill(name, skill):
    config = preset(name, skill)
    assert config.network.execute_steps == EXECUTE_STEPS.get(skill, 16)


def test_unknown_preset_and_skill():
    with pytest.raises(ValueError, match="preset is 'gpu'; expected one of cpu, paper, tiny"):
        preset("gpu")
    with pytest.raises(ValueError, match="skill is 'Juggle'"):
        preset("cpu", "Juggle")


class PerfectNetwork(torch.nn.Module):
    """Stands in for a network that knows the one true chunk: every sampler must then find it."""

    def __init__(self, target, config):
        super().__init__()
        self.target, self.prediction = target, config.prediction
        self.alphas = make_scheduler("ddpm", config).alphas_cumprod
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def modulate_by_step(self, step):
        return self.alphas[step][:, None]

    def modulate_by_observation(self, observation):
        return torch.zeros(len(observation), 1)

    def denoise(self, sample, film):
        if self.prediction == "sample":
            return self.target.expand_as(sample)
        alpha = film[:, :, None]
        return (sample - alpha.sqrt() * self.target) / (1 - alpha).sqrt()


@pytest.mark.parametrize(("scheduler", "steps"), [("ddim", 1), ("ddim", 10), ("ddpm", None)])
@pytest.mark.parametrize("count", [1, 16, 19])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_samplers_find_the_chunk_that_a_perfect_network_knows(scheduler, steps, count, prediction):
    config = dataclasses.replace(SMALL, prediction=prediction)
    target = torch.linspace(-0.9, 0.9, 32 * 28).reshape(32, 28)
    network = PerfectNetwork(target, config)
    sampler = ChunkSampler(network, config, 28, scheduler=scheduler, inference_steps=steps)
    chunks = sampler([[0.0]] * count, range(count))
    assert chunks.shape == (count, 32, 28)
    torch.testing.assert_close(torch.from_numpy(chunks[-1]), target, atol=1e-3, rtol=0)


def test_sampling_nothing_gives_nothing():
    sampler = ChunkSampler(FilmUnet(28, 70, SMALL), SMALL, 28, inference_steps=1)
    assert sampler(torch.zeros(0, 70).numpy(), []).shape == (0, 32, 28)


def test_schedule_is_the_papers():
    scheduler = make_scheduler("ddpm", SMALL)
    assert isinstance(scheduler, DDPMScheduler)
    assert scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert scheduler.config.num_train_timesteps == 100


def test_unknown_scheduler_and_steps():
    with pytest.raises(ValueError, match="scheduler is 'euler'; expected one of ddim, ddpm"):
        make_scheduler("euler", SMALL)
    with pytest.raises(ValueError, match=r"expected 100 \(all\) with ddpm"):
        ChunkSampler(FilmUnet(28, 70, SMALL), SMALL, 28, scheduler="ddpm", inference_steps=10)
