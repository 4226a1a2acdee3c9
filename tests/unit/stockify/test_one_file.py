from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from stockify import one_file

MODULE = """
async def worker(context): ...

def plain(context): ...

class Callable:
    async def __call__(self, context): ...

instance = Callable()
number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_file_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", ["worker", "instance"])
def test_asynchronous_callable_is_a_worker(name: str) -> None:
    assert callable(one_file.find(f"one_file_of_a_user:{name}"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("one_file_of_a_user:plain", "async function"),
        ("one_file_of_a_user:number", "async function"),
        ("one_file_of_a_user:missing", "has no 'missing'"),
        ("no_such_module:worker", "no_such_module"),
    ],
)
def test_anything_else_is_refused_by_name(target: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        one_file.find(target)
