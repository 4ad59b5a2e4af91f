"""The steps of the protocol: what each reads and writes, and what its bytes depend on.

Nothing runs here. Each function returns a `gotd.storage.artifacts.Step`, so keys are known
before any work is done; `gotd.pipeline.experiment` and `gotd.pipeline.select` connect them.
A selection needs no training code, so each module is imported by itself.
"""
