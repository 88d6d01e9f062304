"""Parts of ``tests/fuzz.py``: cases, invariants, and how a failing case is shrunk."""
