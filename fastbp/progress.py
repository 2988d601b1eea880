"""The progress bar: epochs, loss, validation score, time left; tqdm draws it."""

from collections.abc import Mapping
from typing import Any


class ProgressBar:
    """A bar of epochs, in terminals and notebooks.

    Parameters
    ----------
    total : int
        Epochs (or iterations) at most.
    unit : str
        What they are called.

    Raises
    ------
    ImportError
        If tqdm is not installed.
    """

    def __init__(self, total: int, unit: str):
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError(
                "progress_bar=True needs tqdm: pip install 'fastbp[progress]'"
            ) from error
        self._bar: Any = tqdm(total=total, unit=unit, leave=True)

    def step(self, figures: Mapping[str, float]) -> None:
        """One more epoch is done, with these figures."""
        shown = {name: f"{value:.4g}" for name, value in figures.items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is, for good."""
        self._bar.close()
