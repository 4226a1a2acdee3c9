import pytest

from pipeline import cluster
from pipeline.cluster import key_of


@pytest.mark.parametrize(
    ("command", "key"),
    [
        pytest.param(("SET", "latest:{0}:X", b"1", "EX", 5), "latest:{0}:X", id="key-first"),
        pytest.param(("EVALSHA", "abc", 2, b"one", "two"), b"one", id="script"),
        pytest.param(("EVAL", "return 1", 0), None, id="script-without-keys"),
        pytest.param(("MEMORY USAGE", "s"), "s", id="two-words"),
        pytest.param(("XGROUP CREATE", "s", "g", "0"), "s", id="group"),
        pytest.param(
            ("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "STREAMS", "s", ">"), "s", id="read"
        ),
        pytest.param(("PING",), None, id="none"),
        pytest.param(("CONFIG GET", "maxmemory"), None, id="none-of-two-words"),
    ],
)
def test_first_key_of_a_command_is_found(command: tuple[str, ...], key: str | bytes | None) -> None:
    assert key_of(command) == key


def test_what_tells_of_one_node_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="primaries"):
        key_of(("SCAN", "0"))


def test_a_nodes_address_keeps_user_password_and_scheme_of_the_seed() -> None:
    seed = "rediss://me:s3cr3t@seed:7000/0?ssl_cert_reqs=none"
    assert cluster._url(seed, "10.0.0.7", 7001) == (
        "rediss://me:s3cr3t@10.0.0.7:7001?ssl_cert_reqs=none"
    )
    assert cluster._url("redis://seed:7000/0", "::1", 7001) == "redis://[::1]:7001"
