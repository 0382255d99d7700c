"""Continue prompts, in this process.

    echo "De haven van Rotterdam" | python launch/generate.py source=export-pretrain-tiny-sample
    python launch/generate.py source=dpo-large-eur prompts=questions.txt temperature=0

Prompts come from prompts=FILE or standard input, one a line; at a terminal it is a conversation.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.hf import GenerateConfig
from elm_megatron.sources.places import locate


@main("generate", GenerateConfig)
def launch(config: GenerateConfig) -> int:
    """Check the source before the libraries load, then generate."""
    locate(config.source)
    from elm_megatron.evaluate.generate import generate

    generate(config)
    return 0


if __name__ == "__main__":
    launch()
