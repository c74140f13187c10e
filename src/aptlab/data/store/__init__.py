"""Token files: built once, found again by fingerprint, mapped into memory. No torch."""
