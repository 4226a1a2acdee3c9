"""URLs that are none."""

import pytest

from pipeline.database import Database
from pipeline.errors import ConfigError


@pytest.mark.parametrize("url", ["", "postgresql://me:hidden@[half/x", "host=a pass word=hidden"])
def test_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Database(url)
    assert "hidden" not in str(refused.value)
