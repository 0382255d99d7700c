"""The picture of a model's losses."""

from __future__ import annotations

from pathlib import Path

from elm_megatron.run.folder import RunFolder

PICTURE = "loss.png"


def draw(runs: list[tuple[RunFolder, str]], folder: Path) -> bool:
    """Draw training and validation loss of each run over its tokens into `folder`; False without any rows."""
    curves = [
        (name, run.read_metrics(), [row for row in run.read_metrics(run.valid) if row["step"] > 0])
        for run, name in runs
    ]
    curves = [curve for curve in curves if curve[1]]
    if not curves:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(6 * len(curves), 4), squeeze=False)
    for axis, (name, train, valid) in zip(axes[0], curves, strict=True):
        tokens = {row["step"]: row["tokens"] for row in train}
        axis.plot([row["tokens"] for row in train], [row["loss"] for row in train], label="training", lw=1)
        seen = [row for row in valid if row["step"] in tokens]
        axis.plot(
            [tokens[row["step"]] for row in seen], [row["loss"] for row in seen], "o-", label="validation"
        )
        axis.set(title=name, xlabel="tokens", ylabel="loss, nats per token")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / PICTURE, dpi=120)
    pyplot.close(figure)
    return True
