"""The model card."""


def write(folder, config, source, figures):
    pass
