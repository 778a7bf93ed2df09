"""What a diagnosis says."""

from typing import Any, Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]
"""An error spoils the run; a warning costs it something."""


class Finding(NamedTuple):
    """One trouble of a run."""

    name: str
    severity: Severity
    steps: tuple[int, int]  # the first and the last at which it shows
    evidence: str  # a sentence with the figures
    remedy: str  # a sentence

    def as_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {**self._asdict(), "steps": list(self.steps)}
