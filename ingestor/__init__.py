"""ingestor: the folder is the collection.

A daemon that keeps a Chroma collection equal to the text files of a folder.
"""
