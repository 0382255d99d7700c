"""Training, tuning, export, evaluation. Transformer Engine's guard comes before any of megatron-core."""

from elm_megatron.model import known_warnings, te_import

te_import.install()
known_warnings.hide()
