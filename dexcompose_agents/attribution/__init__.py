"""Finger attribution: which fingers may let go of a held object, what B needs of them, and which mask to choose."""
