import dataclasses

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_agents.diffusion.graphs import StaticFunction
from dexcompose_agents.diffusion.sampler import ChunkSampler, make_scheduler
from dexcompose_agents.diffusion.unet import FilmUnet
from dexcompose_agents.runtime.devices import find_device

SMALL = NetworkConfig(widths=(16, 24), step_embedding_size=8, observation_embedding_size=12)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def small_sampler(device="cpu", **settings):
    torch.manual_seed(0)
    return ChunkSampler(FilmUnet(28, 70, SMALL).to(device), SMALL, 28, **settings)


def inputs(count, device="cpu"):
    """Observations, seeds and numbers of chunks."""
    observations = torch.linspace(-1, 1, count * 70).reshape(count, 70)
    return [each.to(device) for each in (observations, torch.arange(count), torch.arange(count) % 3)]


class PerfectNetwork(torch.nn.Module):
    """Stands in for a network that knows the one true chunk: every sampler must then find it."""

    guess = None

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
    chunks = sampler(torch.zeros(count, 1), torch.arange(count), torch.zeros(count, dtype=torch.int64))
    assert chunks.shape == (count, 32, 28)
    torch.testing.assert_close(chunks[-1], target, atol=1e-3, rtol=0)


def test_a_linear_guess_is_added_to_what_the_network_says():
    config = dataclasses.replace(SMALL, linear_guess=True)
    network = FilmUnet(28, 70, config)
    network.guess.fit(torch.randn(300, 2, 35), torch.randn(300, 32, 28))
    observations, seeds, numbers = inputs(5)
    whole = ChunkSampler(network, config, 28)(observations, seeds, numbers)
    guess, network.guess = network.guess, None
    rest = ChunkSampler(network, config, 28)(observations, seeds, numbers)
    torch.testing.assert_close(whole, guess.complete(rest, observations))
    assert (whole - rest).abs().max() > 0.01


def test_sampling_nothing_gives_nothing():
    sampler = ChunkSampler(FilmUnet(28, 70, SMALL), SMALL, 28, inference_steps=1)
    none = torch.zeros(0, dtype=torch.int64)
    assert sampler(torch.zeros(0, 70), none, none).shape == (0, 32, 28)


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_ddpm_is_that_of_diffusers(prediction, monkeypatch):
    config = dataclasses.replace(SMALL, prediction=prediction)
    sampler = ChunkSampler(FilmUnet(28, 70, config), config, 28, scheduler="ddpm")
    generator = torch.Generator().manual_seed(0)
    reference = make_scheduler("ddpm", config)
    reference.set_timesteps(100)
    for timestep in reference.timesteps.tolist():
        predicted, sample, noise = (torch.randn(2, 32, 28, generator=generator) for _ in range(3))
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, noise=noise, **kwargs: noise)
        expected = reference.step(predicted, timestep, sample).prev_sample
        torch.testing.assert_close(sampler._update(predicted, timestep, sample, noise), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_a_chunk_does_not_depend_on_what_is_sampled_with_it(scheduler):
    sampler = small_sampler(scheduler=scheduler)
    together = sampler(*inputs(37))
    for rows in ([3], [36, 0, 17], list(range(5, 30))):
        chosen = sampler(*(each[rows] for each in inputs(37)))
        torch.testing.assert_close(chosen, together[rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_sampling_reads_nothing_back_from_the_device(scheduler):
    # On the device "meta" there are no values: whoever asks for one, or mixes in an array of the host, fails.
    few = dataclasses.replace(SMALL, diffusion_steps=10)  # a step takes a quarter of a second there
    sampler = ChunkSampler(FilmUnet(28, 70, few).to("meta"), few, 28, scheduler=scheduler)
    assert sampler(*inputs(20, "meta")).shape == (20, 32, 28)


def test_bfloat16_is_nearly_the_same():
    exact, rough = (small_sampler(precision=precision)(*inputs(16)) for precision in ("float32", "bfloat16"))
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().mean() < 0.02


def test_static_function_of_cpu_tensors_is_the_function_without_gradients():
    weight = torch.ones(3, requires_grad=True)
    double = StaticFunction(lambda values: 2 * weight * values)
    for value in (1.0, 2.0):
        result = double(torch.full((3,), value))
        assert result.tolist() == [2 * value] * 3
        assert not result.requires_grad
    with torch.inference_mode():
        assert not double(torch.ones(3)).is_inference()


@needs_cuda
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_cuda_graph_samples_what_the_cpu_samples(scheduler):
    sampler = small_sampler("cuda", scheduler=scheduler)
    expected = small_sampler(scheduler=scheduler)(*inputs(300))
    for _ in range(2):
        assert (sampler(*inputs(300, "cuda")).cpu() - expected).abs().mean() < 0.005


@needs_cuda
def test_static_function_on_cuda_follows_its_inputs_and_refuses_other_shapes():
    double = StaticFunction(lambda values: 2 * values)
    first, second = (double(torch.full((3,), value, device="cuda")) for value in (1.0, 2.0))
    assert (first.tolist(), second.tolist()) == ([2.0] * 3, [4.0] * 3)
    with pytest.raises(ValueError, match=r"input has shape \(4,\); expected \(3,\)"):
        double(torch.ones(4, device="cuda"))


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_missing_device_is_named_with_those_that_are_there(name):
    with pytest.raises(ValueError, match=rf"device is '{name}'; expected one of 'cpu'.* \(this machine has .* device"):
        find_device(name)


def test_device_may_be_a_name_or_a_device():
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")


def test_schedule_is_the_papers():
    scheduler = make_scheduler("ddpm", SMALL)
    assert isinstance(scheduler, DDPMScheduler)
    assert scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert scheduler.config.num_train_timesteps == 100


def test_unknown_scheduler_precision_and_steps():
    with pytest.raises(ValueError, match="unknown precision 'int4'; expected one of float32, bfloat16"):
        small_sampler(precision="int4")
    with pytest.raises(ValueError, match="unknown scheduler 'euler'; expected one of ddim, ddpm"):
        make_scheduler("euler", SMALL)
    with pytest.raises(ValueError, match=r"expected 100 \(all\) with ddpm"):
        ChunkSampler(FilmUnet(28, 70, SMALL), SMALL, 28, scheduler="ddpm", inference_steps=10)
