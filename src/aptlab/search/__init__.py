"""Search for rescaling factors of rotary positions: LongRoPE (arXiv:2402.13753) and LongRoPE2 (arXiv:2502.20082).

`settings`, `space`, `seeds`, `evolution`, `evaluation_cache`, `strategies`, `objectives`, `journal` and `engine` are
plain Python. `prepare` opens a checkpoint, `runner` searches on it, `results` writes what was found.
"""
