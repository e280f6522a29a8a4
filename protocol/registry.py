"""Numbered dataclasses: what a type number on the wire or in the log stands for."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Registry:
    """Type numbers 1..`number_max`, each given once and never reused."""

    def __init__(self, number_max: int) -> None:
        self._number_max = number_max
        self.by_number: dict[int, type] = {}
        self.numbers: dict[type, int] = {}

    def register(self, number: int) -> Callable[[type[T]], type[T]]:
        """A class decorator that gives the class `number`."""

        def decorate(cls: type[T]) -> type[T]:
            assert 0 < number <= self._number_max, f"type number {number} is out of range"
            assert number not in self.by_number, f"type number {number} is taken"
            self.by_number[number] = cls
            self.numbers[cls] = number
            return cls

        return decorate
