import pytest

from pipeline.credentials import issue_token
from pipeline.keys import KEY_PREFIX, TICKET_PREFIX
from pipeline.redaction import BLOT, blotted

TOKEN = issue_token("a secret of the tests, long enough for HS256")


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(TOKEN, id="token"),
        pytest.param(TOKEN.rpartition(".")[0], id="token without signature"),
        pytest.param(f"{KEY_PREFIX}0a1b2c0a1b2c_{'9f' * 32}", id="API key"),
        pytest.param(f"{TICKET_PREFIX}{'9f' * 32}", id="ticket"),
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "no symbol '{}' is known", '{{"a":"Bearer {}"}}', "?t={}&x"]
)
def test_secret_is_blotted_out_wherever_it_stands(secret: str, around: str) -> None:
    text = blotted(around.format(secret))
    assert BLOT in text
    assert secret.rpartition("_")[2].rpartition(".")[2] not in text


def test_password_of_a_url_is_blotted_out() -> None:
    assert blotted("redis://gate:a!b#c@host:1/0") == f"redis://gate:{BLOT}@host:1/0"
    assert blotted('"postgresql://u:p@h/d"') == f'"postgresql://u:{BLOT}@h/d"'


@pytest.mark.parametrize(
    "text",
    [
        "NIFTY-20260127-25000-CE",
        "http://127.0.0.1:8700/v1/underlyings?at=12:30",
        "task_done, disk_full, st_mode=33188, st_size",
        "eyJ is how one begins",
        '{"at":"2026-01-25T10:00:00.000000Z","ids":["a@b"]}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert blotted(text) == text
