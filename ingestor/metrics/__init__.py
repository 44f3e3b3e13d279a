"""Metrics: what a daemon tells Prometheus of itself.

The engine counts in plain numbers, which become samples when somebody asks for them; a group of them is a file.

Invariants: every label has few values, and none is a path. The label `source` is the name of the source, and empty -
which is the same as absent to Prometheus - for the only one. What sources with one model share is told by the first of
them. A counter that is known by name begins with 0, so that its first time is seen as an increase.
"""
