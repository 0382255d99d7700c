"""Continue prompts with an exported model: echo "De haven" | python launch/generate.py source=<export>

Runs in this process; prompts come from standard input or prompts=FILE, one a line.
"""

from elm_megatron.compose import main
from elm_megatron.hf.config import GenerateConfig
from elm_megatron.hf.source import require_hf_folder


@main("generate", GenerateConfig)
def launch(config: GenerateConfig) -> int:
    """Check the source before the libraries load, then generate."""
    require_hf_folder(config.source)
    from elm_megatron.hf.generate import generate

    generate(config)
    return 0


if __name__ == "__main__":
    launch()
