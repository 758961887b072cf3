"""Figures with confidence intervals: image, detection, distribution, memorisation."""
