"""An episode's life: how it starts, what is remembered of it, in which phase it is, and what it comes to."""
