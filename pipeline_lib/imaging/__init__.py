"""From a NIfTI file to a brain in a common space: reading, brain extraction, registration, intensity, quality."""
