"""Effects: one file per outside thing (file system, kernel events, SQLite, Chroma, embedding endpoints).

Adapters do not import each other; they meet only in `ingestor.app`, behind the ports.
"""
