"""The composition root: from settings to adapters to a running engine, one file for each thing that users ask for."""
