"""One part of every kind for aptlab, and a command, from another package."""
