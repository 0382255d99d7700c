"""Mark in an answer what is verbatim in the model's training works, and name the works.

    echo "De haven van Rotterdam …" | python launch/trace_answer.py source=pretrain-small-eur
    python launch/trace_answer.py source=dpo-large-eur file=answer.txt json=true
    python launch/trace_answer.py source=pretrain-small-eur file=/dev/null     # only make the index

The first call makes an index of the training split, 4 bytes a token; later calls read it.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.trace import TraceConfig
from elm_megatron.sources.places import locate
from elm_megatron.trace.command import trace_command


@main("trace_answer", TraceConfig)
def launch(config: TraceConfig) -> int:
    """Find the model and its datasets, make the index where there is none, and trace."""
    locate(config.source)
    return trace_command(config)


if __name__ == "__main__":
    launch()
