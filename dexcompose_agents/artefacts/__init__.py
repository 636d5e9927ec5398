"""Files that were learned or chosen: weights, masks, and where those that ship are found."""
