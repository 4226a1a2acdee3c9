"""Where recorded provider bodies lie on this machine, if any; they are not in the project."""

from pathlib import Path


def shared_dir() -> Path | None:
    """The folder `shared` beside the checkout when it holds recordings, else None."""
    folder = Path(__file__).resolve().parents[3] / "shared"
    return folder if (folder / "data" / "dhan").is_dir() else None
