import dataclasses
import signal

import numpy as np
import pytest
import torch
from diffusion_toy import NETWORK, QUICK, TRAINING, Operations, episodes

from dexcompose_agents.artefacts.checkpoints import load_state, save_state
from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.diffusion.dataset import WindowDataset
from dexcompose_agents.diffusion.training import KIND, _Run, new_network, train
from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError

EPISODES = episodes(6)


def interrupt_at(step):
    def progress(report):
        if report.step == step:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "w.safetensors"
    train(EPISODES, QUICK, path)
    return load_weights(path, KIND)


@pytest.fixture
def stopped(tmp_path):
    """A run that Ctrl-C stopped at step 5 of 12."""
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped at step 5 of 12; state saved in .*w\.v2\.safetensors\.checkpoint"
    ):
        train(EPISODES, QUICK, tmp_path / "w.v2.safetensors", progress=interrupt_at(5))
    return tmp_path / "w.v2.safetensors"


def checkpoint_of(path):
    return path.with_name(path.name + ".checkpoint")


def test_loss_falls_far_below_that_of_knowing_nothing(trained):
    # Normalised actions that are mostly -1, 0 or 1 have a variance of about 0.2.
    assert trained[1]["final_loss"] < 0.02


def test_resumed_run_ends_as_an_uninterrupted_one(stopped, uninterrupted):
    assert not stopped.exists()
    steps = []
    train(EPISODES, QUICK, stopped, progress=lambda report: steps.append(report.step))
    assert steps == list(range(6, 13))
    weights, manifest = load_weights(stopped, KIND)
    for name, value in uninterrupted[0].items():
        assert torch.equal(weights[name], value), name
    assert manifest["final_loss"] == uninterrupted[1]["final_loss"]
    assert [entry.name for entry in stopped.parent.iterdir()] == [stopped.name]


def test_a_run_in_pieces_ends_as_one_in_one_go(tmp_path, uninterrupted):
    # Every piece is over at once, and does one step all the same.
    path, pieces = tmp_path / "w.safetensors", 0
    while True:
        try:
            train(EPISODES, QUICK, path, max_minutes=1e-9)
            break
        except KeyboardInterrupt as stopped:
            pieces += 1
            assert f"stopped at step {pieces} of 12" in str(stopped)
            assert "the same call resumes there" in str(stopped)
    assert pieces == 11
    for name, value in load_weights(path, KIND)[0].items():
        assert torch.equal(value, uninterrupted[0][name]), name


def test_a_piece_that_is_long_enough_is_the_whole(tmp_path):
    assert train(EPISODES, QUICK, tmp_path / "w.safetensors", max_minutes=9.0)["steps"] == 12
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"max_minutes is {bad}; expected minutes > 0"):
            train(EPISODES, QUICK, tmp_path / "w.safetensors", max_minutes=bad)


def test_a_run_that_was_stopped_on_a_gpu_goes_on_on_the_cpu(stopped):
    # What a GPU leaves behind: its name, and the state of a generator that the CPU can't read.
    identity = artefacts.load(checkpoint_of(stopped), "checkpoint")[0]["identity"]
    state = load_state(checkpoint_of(stopped), identity)
    state |= {"generator_device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    save_state(checkpoint_of(stopped), state, identity)
    assert train(EPISODES, dataclasses.replace(QUICK, checkpoint_minutes=7.0), stopped)["steps"] == 12


def test_missing_device_is_refused(tmp_path):
    config = dataclasses.replace(QUICK, device="cuda:99")
    with pytest.raises(ValueError, match=r"device is 'cuda:99'; expected one of 'cpu'.* \(this machine has"):
        train(EPISODES, config, tmp_path / "w.safetensors")


def test_the_device_is_waited_for_every_fifty_steps_only(tmp_path):
    read = []

    def progress(report):
        read.append(operations.names.count("_local_scalar_dense"))

    config = dataclasses.replace(QUICK, steps=102)
    with Operations() as operations:
        train(EPISODES, config, tmp_path / "w.safetensors", progress=progress)
    # The first step also sets things up.
    assert np.flatnonzero(np.diff(read)).tolist() == [49, 99]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_in_bfloat16_and_the_cpu_goes_on(tmp_path):
    path = tmp_path / "w.safetensors"
    config = dataclasses.replace(TRAINING, device="cuda", precision="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        train(EPISODES, config, path, progress=interrupt_at(600))
    assert train(EPISODES, dataclasses.replace(config, device="cpu"), path)["final_loss"] < 0.05
    assert torch.get_float32_matmul_precision() == "highest"


def test_resume_can_be_declined(stopped):
    steps = []
    train(EPISODES, QUICK, stopped, resume=False, progress=lambda report: steps.append(report.step))
    assert steps[0] == 1


def test_state_of_other_settings_or_data_is_refused(stopped):
    with pytest.raises(ArtefactError, match=r"config\.learning_rate is 0\.001; expected 0\.5"):
        train(EPISODES, dataclasses.replace(QUICK, learning_rate=0.5), stopped)
    network = dataclasses.replace(NETWORK, kernel_size=5)
    with pytest.raises(ArtefactError, match=r"config\.network\.kernel_size is 3; expected 5"):
        train(EPISODES, dataclasses.replace(QUICK, network=network), stopped)
    with pytest.raises(ArtefactError, match=r"made_from\.data is "):
        train(episodes(5), QUICK, stopped)
    with pytest.raises(ArtefactError, match=r"made_from\.skill is None; expected 'PickStick'"):
        train(EPISODES, QUICK, stopped, provenance={"skill": "PickStick"})


def test_corrupt_state_is_reported(stopped):
    checkpoint = checkpoint_of(stopped)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ArtefactError, match=r"checkpoint' is truncated.*remove it to start afresh"):
        train(EPISODES, QUICK, stopped)


def test_ctrl_c_handler_is_given_back(tmp_path):
    def mine(number, frame):
        raise AssertionError("the handler of the caller was called during training")

    before = signal.signal(signal.SIGINT, mine)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(EPISODES, QUICK, tmp_path / "w.safetensors", progress=interrupt_at(2))
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_weights_are_averaged_ones(tmp_path):
    # Decay 0 keeps the last weights, decay 1 the first that were averaged; the default lies in between.
    found = {}
    for name, change in {"last": {"ema_decay": 0.0}, "average": {}}.items():
        path = tmp_path / f"{name}.safetensors"
        train(EPISODES, dataclasses.replace(QUICK, learning_rate=1e-2, **change), path)
        found[name] = load_weights(path, KIND)[0]["film_step.weight"]
    start = new_network(3, 1, NETWORK, QUICK.seed).film_step.weight.detach()
    distance = {name: (value - start).norm().item() for name, value in found.items()}
    assert 0 < distance["average"] < distance["last"]


@pytest.mark.parametrize(
    ("change", "expected"), [({}, 2.649830), ({"ema_decay": 0.5}, 2.797302), ({"ema_power": 1.0}, 2.333333)]
)
def test_averaging_by_hand(change, expected):
    # Weights 1, 2, 4 after three steps; step n = 0, 1, 2 moves the average by (1 + n) ** -0.75 of the difference: all
    # the way to 1, then by 0.594604 to 1.594604, then by 0.438691 * 2.405396 to 2.649830. With a decay of at most 0.5
    # the last share is 0.5. With power 1 it is the mean, 7 / 3.
    run = begun(**change)
    for run.step, value in enumerate((1.0, 2.0, 4.0)):
        for parameter in run._network.parameters():
            parameter.data.fill_(value)
        run._average()
    for name, value in run.averaged.state_dict().items():
        torch.testing.assert_close(value, torch.full_like(value, expected), msg=name)


def begun(**change):
    """A run of the toy skill that has made no step."""
    return _Run(WindowDataset(EPISODES, NETWORK), dataclasses.replace(QUICK, **change), torch.device("cpu"), {})


def test_gradients_are_clipped_to_the_norm_asked_for():
    run = begun(gradient_clip=1e-3)
    run.advance()
    norms = [parameter.grad.norm() for parameter in run._network.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)  # they are larger by nature


def test_weight_decay_by_hand():
    # AdamW shrinks a weight by its learning rate times the decay, besides the step that Adam makes without decay.
    plain, decaying = begun(weight_decay=0.0), begun(weight_decay=0.5)
    start = plain._network.film_step.weight.detach().clone()
    for run in (plain, decaying):
        run.advance()
    rate = plain.report().learning_rate
    assert rate == 0.5e-3  # the first of two steps of warm-up
    shrunk = plain._network.film_step.weight - decaying._network.film_step.weight
    torch.testing.assert_close(shrunk, rate * 0.5 * start, rtol=1e-3, atol=1e-8)


def test_global_generator_of_torch_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    train(EPISODES, QUICK, tmp_path / "w.safetensors")
    assert torch.equal(before, torch.get_rng_state())


def test_learning_rate_warms_up_and_decays(tmp_path):
    rates = []
    config = dataclasses.replace(QUICK, warmup_steps=4)
    train(EPISODES, config, tmp_path / "w.safetensors", progress=lambda report: rates.append(report.learning_rate))
    # Step n: min(1, n / 4) * (1 + cos(pi (n - 1) / 12)) / 2.
    n = np.arange(1, 13)
    expected = 1e-3 * np.minimum(1, n / 4) * (1 + np.cos(np.pi * (n - 1) / 12)) / 2
    np.testing.assert_allclose(rates, expected)


def test_time_limit_ends_training_early(tmp_path):
    config = dataclasses.replace(TRAINING, steps=10**9, time_limit=0.003)
    manifest = train(EPISODES, config, tmp_path / "w.safetensors")
    assert 1 <= manifest["steps"] < 10**6


def test_bfloat16_trains(tmp_path):
    manifest = train(EPISODES, dataclasses.replace(QUICK, precision="bfloat16"), tmp_path / "w.safetensors")
    assert np.isfinite(manifest["final_loss"])


def test_manifest_says_what_made_the_weights(tmp_path):
    provenance = {"skill": "PushButton", "dataset_id": "DexCompose/PushButton/expert-v0", "model_hash": "abc"}
    train(EPISODES, QUICK, tmp_path / "w.safetensors", provenance=provenance)
    manifest = load_weights(tmp_path / "w.safetensors", KIND)[1]
    assert provenance.items() <= manifest.items()
    assert manifest["steps"] == 12
    assert manifest["dataset"]["episodes"] == 6
    assert manifest["config"]["network"]["widths"] == [32, 32]


def test_finger_dropout_needs_the_joints(tmp_path):
    with pytest.raises(ValueError, match="observations have 3 numbers; expected at least the 28 joints"):
        train(EPISODES, dataclasses.replace(QUICK, finger_dropout=0.5), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"finger_dropout": 1.5}, "finger_dropout is 1.5"),
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"time_limit": -1.0}, "time_limit is -1.0"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(QUICK, **change)
