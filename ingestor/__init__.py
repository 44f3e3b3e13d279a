"""ingestor: the folder is the collection.

A daemon that keeps a Chroma collection equal to the text files of a folder.
"""

import os

# From 1.29 on, onnxruntime tells its maker of every session, with an identifier of the machine that it keeps in the
# user's home, unless this is said before it is loaded. Nothing of ours leaves the machine but what the settings name;
# who has chosen otherwise for a whole environment keeps the choice.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
