"""Retention skills: one file each."""
