"""Settings of the learners that Isaac Lab's commands run for residual B: rsl_rl's PPO and skrl's."""

from __future__ import annotations

from typing import Any

import torch
from isaaclab.utils import configclass
from isaaclab_rl.rsl_rl import RslRlMLPModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg

HIDDEN = [128, 128]
"""Hidden layers of actor and critic."""
GAMMA, LAMBDA, STEPS = 0.97, 0.9, 64
"""Discount, its trace, and control steps per world and iteration: a press shows its worth within two dozen steps."""
FIRST_STD = 0.3
"""Standard deviation of the first actions: small corrections of a policy that works already."""


@configclass
class ResidualBRunnerCfg(RslRlOnPolicyRunnerCfg):
    """rsl_rl's on-policy runner with PPO."""

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    num_steps_per_env = STEPS
    max_iterations = 100
    save_interval = 25
    experiment_name = "dexcompose_residual_b"
    obs_groups = {"actor": ["policy"], "critic": ["policy"]}  # noqa: RUF012 (configclass makes a factory of it)
    actor = RslRlMLPModelCfg(
        hidden_dims=HIDDEN,
        activation="elu",
        obs_normalization=True,
        distribution_cfg=RslRlMLPModelCfg.GaussianDistributionCfg(init_std=FIRST_STD),
    )
    critic = RslRlMLPModelCfg(hidden_dims=HIDDEN, activation="elu", obs_normalization=True)
    algorithm = RslRlPpoAlgorithmCfg(
        value_loss_coef=1.0,
        use_clipped_value_loss=True,
        clip_param=0.2,
        entropy_coef=0.0,
        num_learning_epochs=4,
        num_mini_batches=4,
        learning_rate=3e-4,
        schedule="adaptive",
        gamma=GAMMA,
        lam=LAMBDA,
        desired_kl=0.01,
        max_grad_norm=1.0,
    )


def skrl_ppo_cfg() -> dict[str, Any]:
    """The settings of skrl's `Runner` with PPO."""
    net = [{"name": "net", "input": "OBSERVATIONS", "layers": HIDDEN, "activations": "elu"}]
    gaussian = {"class": "GaussianMixin", "clip_actions": False, "clip_log_std": True, "min_log_std": -20.0}
    gaussian |= {"max_log_std": 2.0, "initial_log_std": -1.2, "network": net, "output": "ACTIONS"}
    scaler = {"observation_preprocessor": "RunningStandardScaler", "observation_preprocessor_kwargs": None}
    scaler |= {"value_preprocessor": "RunningStandardScaler", "value_preprocessor_kwargs": None}
    return {
        "seed": 42,
        "models": {
            "separate": True,
            "policy": gaussian,
            "value": {"class": "DeterministicMixin", "clip_actions": False, "network": net, "output": "ONE"},
        },
        "memory": {"class": "RandomMemory", "memory_size": -1},
        "agent": {
            "class": "PPO", "rollouts": STEPS, "learning_epochs": 4, "mini_batches": 4, "discount_factor": GAMMA,
            "gae_lambda": LAMBDA, "learning_rate": 3e-4, "learning_rate_scheduler": "KLAdaptiveLR",
            "learning_rate_scheduler_kwargs": {"kl_threshold": 0.01}, **scaler, "grad_norm_clip": 1.0,
            "ratio_clip": 0.2, "value_clip": 0.2, "entropy_loss_scale": 0.0, "value_loss_scale": 1.0,
            "kl_threshold": 0.0, "rewards_shaper_scale": 1.0, "time_limit_bootstrap": False,
            "experiment": {
                "directory": "dexcompose_residual_b", "experiment_name": "", "write_interval": "auto",
                "checkpoint_interval": "auto",
            },
        },
        "trainer": {"class": "SequentialTrainer", "timesteps": 6400, "environment_info": "log"},
    }  # fmt: skip
