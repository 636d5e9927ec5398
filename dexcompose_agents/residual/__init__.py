"""Bounded residuals on top of frozen policies: stabiliser A and residual B, what they see, do and are paid for."""
