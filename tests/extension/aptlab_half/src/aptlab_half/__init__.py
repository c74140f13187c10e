"""A rotary rule for aptlab, in a package of its own."""
