"""Learners that know nothing of hands."""
