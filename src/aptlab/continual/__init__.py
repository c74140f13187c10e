"""Learning one task after another: what is measured of it, and what is remembered meanwhile. No torch."""
