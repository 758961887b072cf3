"""Generative models of brain MRI: everything the workflow computes, without Snakemake."""

__version__ = "0.1.0"
