"""Typed configuration: the one place where a setting, its default and its limits are written."""
