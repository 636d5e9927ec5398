"""The composition of skills in one hand, Eqs. 7 to 12, once for the wrappers, the methods and for training.

Everything here is written to the array-API standard: the same lines serve NumPy on the host and torch on a device, and
nothing is read back from a device within a control step.
"""
