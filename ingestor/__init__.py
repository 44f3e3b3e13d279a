"""ingestor: the folder is the collection.

A daemon that keeps a Chroma collection equal to the text files of a folder.
"""

from importlib.metadata import version

__version__ = version("ingestor")
