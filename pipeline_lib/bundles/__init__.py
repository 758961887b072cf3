"""Trained models that travel, and those that ship with the library."""
