"""The commands that aren't stages; each is a function whose arguments are its options."""
