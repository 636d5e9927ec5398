"""Interaction skills: one file each."""
