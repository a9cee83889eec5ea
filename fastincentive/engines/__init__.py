"""Where the followers of a run are: in this process, or in shards on the workers of a cluster."""

from fastincentive.engines.local import Local
from fastincentive.engines.on_dask import Dask, Traffic
from fastincentive.engines.run import Engine, Run

__all__ = ["Dask", "Engine", "Local", "Run", "Traffic"]
