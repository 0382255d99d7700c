"""Refusing a value with one sentence that names the key, what was found and what is allowed. Torch-free."""

from __future__ import annotations

from conf.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raise InputError(message) unless the condition holds."""
    if not condition:
        raise InputError(message)


def require_choice(key: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a value outside a closed list, naming the key, the value and the list."""
    names = ", ".join("null" if a is None else str(a) for a in allowed)
    require(value in allowed, f"{key}={value}: allowed are {names}.")


def divisors(n: int) -> str:
    """The divisors of n as text, for error messages: divisors(4) == '1, 2, 4'."""
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
