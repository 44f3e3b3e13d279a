"""The HTTP interface of the daemon: health, the JSON API, what happens now.

Invariant: everything but `server` and `listening` imports FastAPI or uvicorn, and is imported by `server` alone, off
the loop, while something else is waited for.
"""
