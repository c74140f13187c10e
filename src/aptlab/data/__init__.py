"""Text as rows of tokens: sources, tokenizers, the token store, rows and their order, one loader, one data module.

`sources`, `tokenizers`, `store` and `rows` import no torch (but `rows.windows` and `rows.regimes`); `loader` and
`module` do.
"""
