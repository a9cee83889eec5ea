"""Types of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass

__all__ = ["FloatArray"]

FloatArray = NDArray[np.float64]
