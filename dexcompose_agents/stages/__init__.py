"""The stages from demonstrations to residuals, and the chain that runs them."""
