"""Training, tuning, export, evaluation. Transformer Engine's guard comes before any of megatron-core."""

from elm_megatron.model import te_import

te_import.install()
