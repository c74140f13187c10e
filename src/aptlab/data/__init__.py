"""Text as tokens: sources, tokenizers, the token cache, packing, sample order, loaders.

`sources`, `tokenizers`, `split`, `readers` and `cache` import no torch; only `loader`, `windows` and
`module` do.
"""
