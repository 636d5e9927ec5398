"""Files that were learned or chosen: weights, checkpoints, and where those that ship are found."""
