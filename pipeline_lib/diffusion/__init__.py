"""Schedules, prediction targets, samplers: tensors in, tensors out."""
