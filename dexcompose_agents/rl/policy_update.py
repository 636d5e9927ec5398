"""One iteration's improvement of policy and value: clipped policy gradient and value regression (PPO)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.rollout import Rollout, generalised_advantages

_PER_BATCH = ("policy_loss", "value_loss", "kl", "clip_fraction")
_KL = _PER_BATCH.index("kl")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Step size of all that an optimiser moves."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.inference_mode(False)
@torch.enable_grad()
def improve(
    network: ActorCritic, optimizer: torch.optim.Optimizer, rollout: Rollout, config: PPOConfig,
    generator: torch.Generator,
) -> dict[str, float]:  # fmt: skip
    """Makes several passes over the valid steps of a network's rollout, and changes the network in place.

    The host reads one number per pass if `target_kl` is set, and all others once at the end. The generator, on the
    network's device, gives the order of steps.

    Returns:
        Means over all minibatches and more, to be logged; all NaN where there was too little to learn from.
    """
    advantages = generalised_advantages(
        rollout.rewards, rollout.values, rollout.next_values, rollout.terminated, rollout.ended, rollout.left_out,
        config.gamma, config.gae_lambda,
    )  # fmt: skip
    valid = rollout.valid
    observations, actions = rollout.observations[valid], rollout.actions[valid]
    old_log_probs, values, advantages = rollout.log_probs[valid], rollout.values[valid], advantages[valid]
    targets = advantages + values
    count = len(targets)
    if count < 2 * config.minibatches:
        return dict.fromkeys(_PER_BATCH, float("nan"))
    unexplained = (targets - values).var() / targets.var().clamp(min=1e-8)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    network.track_returns(targets)
    sums, passes = torch.zeros(len(_PER_BATCH), dtype=torch.float32, device=targets.device), 0
    for _ in range(config.epochs):
        order = torch.randperm(count, generator=generator, device=generator.device)
        pass_sums = torch.zeros_like(sums)
        for batch in order.tensor_split(config.minibatches):
            mean, value = network(observations[batch])
            log_ratio = network.log_prob(mean, actions[batch]) - old_log_probs[batch]
            losses = _losses(log_ratio, advantages[batch], (value - targets[batch]) / network.return_std, config.clip)
            loss = losses[0] + config.value_coef * losses[1] - config.entropy_coef * network.entropy()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
            with torch.device("cpu"):  # where Adam is to count its steps, whatever torch's default device is
                optimizer.step()
            pass_sums += losses.detach()
        sums += pass_sums / config.minibatches
        passes += 1
        if config.target_kl is not None and float(pass_sums[_KL]) > config.target_kl * config.minibatches:
            break
    action_std = network.log_std.detach().exp().mean()
    numbers = torch.cat([sums / passes, torch.stack([1.0 - unexplained, action_std])]).tolist()
    return dict(zip((*_PER_BATCH, "explained_variance", "action_std"), numbers, strict=True))


def _losses(log_ratio: Tensor, advantages: Tensor, value_errors: Tensor, clip: float) -> Tensor:
    """What `_PER_BATCH` names, (4,), from a minibatch's (n,)."""
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
    kl = (ratio - 1 - log_ratio).mean()
    outside = ((ratio - 1).abs() > clip).float().mean()
    return torch.stack([policy_loss, value_errors.square().mean(), kl, outside])
