"""Networks, one code for 2D and 3D: tensors in, tensors out."""
