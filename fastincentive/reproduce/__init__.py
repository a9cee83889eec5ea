"""The paper's experiment."""

from fastincentive.reproduce.experiment import INITIALISATIONS, PAPER_TABLE_1, reproduce

__all__ = ["INITIALISATIONS", "PAPER_TABLE_1", "reproduce"]
