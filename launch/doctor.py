"""Compare a cluster's configuration with the live system.

    python launch/doctor.py cluster=snellius

Nothing is changed and nothing submitted. Each line is ok, a warning or a problem, and says what to do.
"""

import checkout  # noqa: F401
from conf.compose import main
from slurm.doctor.examine import DoctorConfig, examine, show


@main("doctor", DoctorConfig)
def launch(config: DoctorConfig) -> int:
    """One line per check, with what to do; status 1 when something must be done."""
    return show(examine(config.cluster))


if __name__ == "__main__":
    launch()
