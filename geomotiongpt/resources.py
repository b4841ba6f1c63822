"""Files at the top of the project that are installed with the package: recipes and the model card template."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Path of a shared file, `hub_configs/...` or `model_card.md`, installed or in a source checkout.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{name} is not in {_PACKAGE} nor beside it; reinstall geomotiongpt.")
