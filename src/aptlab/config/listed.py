"""Classes of other projects that a configuration may name, by the kind of the place: a list, and nothing beside it.

None of them opens a file, starts a process or reaches the network when it is built or used, but for what the trainer's
place takes: that one is the user's and is never built from a received file. `ModelCheckpoint` with its folder, the
loggers and the metrics that load models are not here. Whoever needs one names it in $APTLAB_TRUST.
"""

from __future__ import annotations

_NN, _CALLBACKS = "torch.nn", "lightning.pytorch.callbacks"
_NORMS = ("LayerNorm", "RMSNorm", "Identity")
_NETWORKS = (
    *("Classifier", "classifier.Classifier", "Decoder", "decoder.Decoder"),
    *("DyTox", "dytox.DyTox", "DyToxSeed", "dytox_seed.DyToxSeed"),
    *("EncoderDecoder", "encoder_decoder.EncoderDecoder"),
)
_MODULES = (*_NORMS, "Linear", "Embedding", "Dropout", "GELU", "SiLU", "ReLU", "Tanh", "Sigmoid", "Softplus")

# Kind, by the module that defines it -> names in one package.
_NAMES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "aptlab.nn.norm.Norm": ((_NN, _NORMS),),
    "torch.nn.modules.sparse.Embedding": ((_NN, ("Embedding",)),),
    # A network of whoever brings his own task: of ours the whole one alone, for every layer is a Module.
    "torch.nn.modules.module.Module": ((_NN, _MODULES), ("aptlab.models", _NETWORKS)),
    "lightning.pytorch.callbacks.callback.Callback": (
        (
            _CALLBACKS,
            (
                *("DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "GradientAccumulationScheduler"),
                *("LearningRateMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar"),
                *("StochasticWeightAveraging", "TQDMProgressBar", "ThroughputMonitor", "Timer", "WeightAveraging"),
            ),
        ),
    ),
    "lightning.pytorch.trainer.trainer.Trainer": (("lightning", ("Trainer",)), ("lightning.pytorch", ("Trainer",))),
    "lightning.pytorch.profilers.profiler.Profiler": (
        (
            "lightning.pytorch.profilers",
            ("AdvancedProfiler", "PassThroughProfiler", "PyTorchProfiler", "SimpleProfiler"),
        ),
    ),
}
# The same kinds by the names that conf/groups.yaml has for them.
_CALLED = {
    "lightning.pytorch.Callback": "lightning.pytorch.callbacks.callback.Callback",
    "lightning.pytorch.Trainer": "lightning.pytorch.trainer.trainer.Trainer",
    "torch.nn.Module": "torch.nn.modules.module.Module",
}
LISTED = {
    kind: tuple(f"{package}.{name}" for package, names in groups for name in names) for kind, groups in _NAMES.items()
}
LISTED |= {called: LISTED[kind] for called, kind in _CALLED.items()}
BROAD = ("torch.nn.Module", _CALLED["torch.nn.Module"])  # of ours, only the list counts
EVERYWHERE = frozenset(name for names in LISTED.values() for name in names)
