"""Writes the reference parts of the documents from the code: `python -m stockify.reference`.

`docs/configuration.md` is the settings, the leg table of `docs/data-model.md` the leg layout, and
`docs/schemas/` what entries hold. It only renders; what is true of a setting or a column is said
where it is declared.
"""

from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec

from pipeline.config import PREFIX, Settings
from pipeline.errors import ConfigError
from pipeline.models import LEG_COLUMNS
from pipeline.schemas import SCHEMAS

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- legs: written by `make docs` -->", "<!-- end of legs -->"

_PREFACE = f"""# Configuration

<!-- Written by `make docs` from `pipeline/config.py`. -->

Every setting is an environment variable. The same names in small letters and without `{PREFIX}` may
stand in a TOML file that `{PREFIX}CONFIG` names; the environment comes before the file. Lists are
separated by commas. What `stockify up` starts is given its settings by it.

| variable | default | says |
|---|---|---|
"""
_TYPE_WORDS = {"f": "float", "i": "integer", "u": "code"}


def configuration_page() -> str:
    """The page of all settings, in the order of their declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = [
        f"| `{PREFIX}{field.name.upper()}` | {_shown(field.default)} | {_described(hints, field)} |"
        for field in msgspec.structs.fields(Settings)
    ]
    return _PREFACE + "\n".join(rows) + "\n"


def leg_table() -> str:
    """The columns of a leg, in the order of the layout."""
    rows = [
        f"| `{column.name}` | {_dtype(column.dtype)} | {column.unit} | {column.meaning} |"
        for column in LEG_COLUMNS
    ]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])


def with_leg_table(page: str) -> str:
    """The page with the leg table between its two marks. Raises ConfigError without them."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"no {BEGIN} … {END} in the page")
    return f"{before}{BEGIN}\n{leg_table()}\n{END}{after}"


def schema_files() -> dict[str, bytes]:
    """The JSON Schema of every type, by file name."""
    return {f"{name}.json": schema.page for name, schema in SCHEMAS.items()}


def main() -> None:
    """Write the pages and the schemas."""
    (DOCUMENTS / "configuration.md").write_text(configuration_page())
    data_model = DOCUMENTS / "data-model.md"
    data_model.write_text(with_leg_table(data_model.read_text()))
    for name, text in schema_files().items():
        (DOCUMENTS / "schemas" / name).write_bytes(text)


def _shown(default: object) -> str:
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    if isinstance(default, bool):
        text = text.lower()
    return f"`{text}`" if text else ""


def _described(hints: dict[str, object], field: msgspec.structs.FieldInfo) -> str:
    hint = hints[field.name]
    if get_origin(hint) is not Annotated:
        return ""
    meta = next(part for part in get_args(hint) if isinstance(part, msgspec.Meta))
    text = meta.description or ""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _dtype(dtype: str) -> str:
    return f"{_TYPE_WORDS[dtype[1]]}, {dtype[2:]} bytes".replace("1 bytes", "1 byte")


if __name__ == "__main__":
    main()
