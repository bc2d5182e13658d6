"""The link between the Sparks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.settings.words import Frozen


class FabricSettings(Frozen):
    """The link between the Sparks."""

    hcas: Literal["both", "single"] = "both"
    """Both halves ("twins") of the QSFP port carry 100 Gb/s each; single pins the first, which cures
    hangs on switches that put both into one subnet."""

    rdma: Literal["require", "warn"] = "warn"
    """What to do where traffic would not be on RDMA and so be 10-20 times slower; also where NCCL's own log says so
    once the server runs."""

    min_rdma_gbps: Annotated[float, Field(ge=0)] = 80
    """Gb/s that RDMA must carry from each Spark to each other one before anything stands on it, measured with
    perftest where all Sparks have it; 0: not measured. One healthy twin carries 92, a pair of twins 189, a degraded
    one 13."""

    min_tcp_gbps: Annotated[float, Field(ge=0)] = 20
    """The same for TCP streams, where a Spark has no perftest."""
