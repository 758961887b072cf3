"""Numbers from arrays, nothing else: image, detection, distribution, memorisation, bootstrap."""
