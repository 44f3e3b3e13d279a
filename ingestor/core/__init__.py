"""Pure decisions: no clock, no operating system, no thread, no network.

Everything here is a function from values to values, so that every decision the daemon takes can be tested without
running the daemon.
"""
