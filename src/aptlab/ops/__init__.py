"""Functions of tensors: the equation in the docstring, the plain reference beside the fast path."""
