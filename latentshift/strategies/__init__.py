"""Refinement methods, one file per family; each is a frozen dataclass of its options.

To add one: copy a small file here, name it in pyproject.toml under `latentshift.strategies`, and call
`latentshift.testing.check_strategy` in a test. `base.py` holds the contract.
"""
