"""`doctor`: what surrounds ingestor - folders, limits, disks, services - looked at and explained.

Each module has one check, a function from the premises to findings.
"""
