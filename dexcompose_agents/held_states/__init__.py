"""Making held-state libraries (Eq. 4)."""
