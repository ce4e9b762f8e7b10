"""What is closed at the end of its `with`."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """A server or the like: `with` gives it, and closes it however the block ends."""

    @abstractmethod
    def close(self) -> None:
        """Stop it, and let go of what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
