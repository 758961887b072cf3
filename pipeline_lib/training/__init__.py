"""One loop, one checkpoint; a model contributes its step."""
