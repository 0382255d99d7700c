"""fp8 bookkeeping, never on."""

import contextlib


class FP8GlobalStateManager:
    """Says that fp8 is off."""

    @staticmethod
    def is_fp8_enabled() -> bool:
        """No."""
        return False


def fp8_autocast(*_: object, **__: object) -> contextlib.nullcontext:
    """Nothing."""
    return contextlib.nullcontext()


def fp8_model_init(*_: object, **__: object) -> contextlib.nullcontext:
    """Nothing."""
    return contextlib.nullcontext()
