"""Pictures and HTML."""
