"""Figures, each as a ratio against a named baseline in the same run: ``python -m bench --help``."""
