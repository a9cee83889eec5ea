"""The scripts of ``examples/`` on small inputs."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow  # minutes where kernels run as plain Python
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_many_followers(tmp_path):
    pytest.importorskip("matplotlib")
    script = runpy.run_path(str(EXAMPLES / "many_followers.py"))
    script["crowd"](tmp_path / "crowd.png", 4)
    script["demand"](tmp_path / "demand.png", 4, 5)
    for name in ("crowd.png", "demand.png"):
        assert (tmp_path / name).stat().st_size > 5000
