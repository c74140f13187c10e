"""The parts of `aptlab eval`: request and rules (no torch), bench, then one module per kind of measurement."""
