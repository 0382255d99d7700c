"""The web app in which students and staff ask, write, compare, review and withdraw.

python launch/community.py source=dpo-tiny-sample  # the chat page on that model, served on this machine
python launch/community.py                      # serves it on http://127.0.0.1:8601
python launch/community.py invite=reviewer      # prints an invitation link
python launch/community.py export=autumn        # tuning files in community/exports/autumn
python launch/community.py spreadsheet=students.xlsx   # its dialogues and ratings, into the database
python launch/community.py withdraw=item:12     # or a pseudonym; names every dataset and model made with it

Served models are listed in community/models.yaml: [{name: elm, url: "http://127.0.0.1:8080", key_file: …}].
With source: <run> beside them, the chat page shows which training works are in an answer.
"""

import checkout  # noqa: F401
from conf.compose import main
from conf.schema.community import CommunityConfig
from slurm.jobs import extras


@main("community", CommunityConfig)
def launch(config: CommunityConfig) -> int:
    """Serve the app, or do what a curator asks."""
    extras.check("community", config)
    from elm_megatron.community.command import community_command

    return community_command(config)


if __name__ == "__main__":
    launch()
