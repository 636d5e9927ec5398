"""Base policies: diffusion policies trained from demonstrations; see `policy.load_policy` and `training.train`."""
