"""Search for rescaling factors of rotary positions: LongRoPE (arXiv:2402.13753) and LongRoPE2 (arXiv:2502.20082).

`space`, `seeds`, `evolution`, `book`, `strategies`, `journal` and `engine` are plain Python; `objective` and `pool`
need torch. Nothing here reads a configuration.
"""
