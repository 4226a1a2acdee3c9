"""The declaration of the files agrees with the statements that fill them."""

import re

import pytest

from pipeline.cold.datasets import CONTRACTS, DATASETS, SENT_LEGS, SNAPSHOTS, Dataset
from pipeline.queries import queries


def sent(dataset: Dataset) -> list[str]:
    """The columns that the COPY of a dataset selects."""
    text = queries()[f"copy_{dataset.name}_out"].text
    found = re.search(r"SELECT(.*?)FROM", text, re.DOTALL)
    assert found is not None
    return re.findall(r"(\w+)(?:, 'infinity'\))?(?:,|$)", found[1].replace("nullif(", "").strip())


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_copy_sends_the_columns_in_their_order(dataset: Dataset) -> None:
    wanted = dataset.names if dataset is not CONTRACTS else tuple(name for name, _ in SENT_LEGS)
    assert tuple(sent(dataset)) == wanted


def test_snapshots_come_back_in_the_order_of_their_copy() -> None:
    text = queries()["copy_market_snapshots"].text
    found = re.search(r"\((.*?)\)", text, re.DOTALL)
    assert found is not None
    columns = [name.strip() for name in found[1].split(",")]
    columns.remove("underlying")
    assert tuple(columns) == SNAPSHOTS.names


def test_legs_have_every_column_that_is_sent() -> None:
    assert {name for name, _ in SENT_LEGS} <= set(CONTRACTS.names)
