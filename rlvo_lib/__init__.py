"""Thin library behind the rLVO-repro notebooks: encoders, DAFT fusion, metrics and the stages between.

Each module is a noun of the field and imports only the modules listed above it in
``tests/test_architecture.py``. Importing the package does nothing.
"""

__version__ = "0.1.0"
