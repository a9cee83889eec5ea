"""Another name of ``fastincentive.certificates.theory``."""

from fastincentive.certificates.theory import *  # noqa: F403
from fastincentive.certificates.theory import __all__ as __all__
