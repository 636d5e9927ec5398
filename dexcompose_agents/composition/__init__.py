"""The composition of two skills in one hand, Eqs. 7 to 12."""
