"""The loop: what happens when, in which order, and what is tried again."""
