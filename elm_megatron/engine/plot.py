"""A picture of a run: python -m elm_megatron.engine.plot runs/NAME writes runs/NAME/curves.png.

Made at the end of every run; needs no server.
"""

from __future__ import annotations

import sys
from pathlib import Path

from elm_megatron.run.folder import RunFolder


def plot(run: RunFolder) -> Path:
    """Draw loss, learning rate, gradient norm and speed over the steps; returns the file.

    Raises:
        FileNotFoundError: the run has logged nothing yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, valid, record = run.read_metrics(), run.read_metrics(run.valid), run.read()
    if not rows:
        raise FileNotFoundError(f"{run.metrics} holds no rows")
    steps = [row["step"] for row in rows]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
    figure.suptitle(run.path.name)
    (loss, rate), (norm, speed) = axes
    loss.plot(steps, [row["loss"] for row in rows], label="training", linewidth=1)
    if valid:
        loss.plot(
            [r["step"] for r in valid], [r["loss"] for r in valid], "o-", label="validation", markersize=4
        )
    if record.get("unigram_entropy"):
        loss.axhline(record["unigram_entropy"], color="grey", linestyle=":", label="unigrams")
    loss.legend()
    curves = ((rate, "lr"), (norm, "grad_norm"), (speed, "tokens_per_second"))
    for axis, name in curves:
        axis.plot(steps, [row[name] for row in rows], linewidth=1)
    titles = ("loss (nats per token)", "learning rate", "gradient norm", "tokens per second")
    for axis, title in zip((loss, rate, norm, speed), titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_xlabel("step")
    target = run.path / "curves.png"
    temporary = run.path / ".curves.tmp.png"
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    temporary.replace(target)
    return target


if __name__ == "__main__":
    print(plot(RunFolder(sys.argv[1])))
