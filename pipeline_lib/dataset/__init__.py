"""Training images: packed once, memory-mapped ever after."""
