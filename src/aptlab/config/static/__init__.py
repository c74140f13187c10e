"""What is read from source files without importing them: signatures, annotations, their limits."""
