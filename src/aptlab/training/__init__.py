"""A training run: `plan` what is meant, `assemble` the parts and the run, `fit`, `finish` by measuring and writing.

`plan`, `trainer_keys` and `validation` import no torch.
"""
