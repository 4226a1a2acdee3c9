"""Kept answers: the same body for another request, of one position, within bounds."""

import pytest

from api.rest.kept import KeptAnswers

HEADERS = {"ETag": 'W/"1"'}


def body_of(request_id: str, data: str = "[1]") -> bytes:
    return f'{{"data":{data},"meta":{{"rows":1,"request_id":"{request_id}"}},"next":null}}'.encode()


def told(answers: KeptAnswers, key: str, position: int, request_id: str) -> bytes | None:
    found = answers.get(key, position, request_id)
    if found is None:
        return None
    body, rest, headers = found
    assert headers == HEADERS
    return body + rest


@pytest.mark.parametrize("other", ["b", "longer-than-the-first", "a"])
def test_body_is_that_of_the_request(other: str) -> None:
    answers = KeptAnswers()
    answers.put("key", 1, "a", body_of("a"), HEADERS)
    assert told(answers, "key", 1, other) == body_of(other)


def test_text_in_the_data_is_not_taken_for_the_id() -> None:
    data = '[{"request_id":"a"}]'
    answers = KeptAnswers()
    answers.put("key", 1, "a", body_of("a", data), HEADERS)
    assert told(answers, "key", 1, "b") == body_of("b", data)


def test_nothing_is_told_of_another_position_or_question() -> None:
    answers = KeptAnswers()
    answers.put("key", 1, "a", body_of("a"), HEADERS)
    assert answers.get("key", 2, "b") is None
    assert answers.get("other", 1, "b") is None
    answers.put("key", 2, "c", body_of("c", "[2]"), HEADERS)
    assert answers.get("key", 1, "b") is None
    assert told(answers, "key", 2, "b") == body_of("b", "[2]")


def test_answer_without_an_id_is_not_kept() -> None:
    answers = KeptAnswers()
    answers.put("key", 1, "a", b'{"data":[]}', HEADERS)
    assert answers.get("key", 1, "a") is None


def test_what_was_unused_for_longest_goes_first() -> None:
    answers = KeptAnswers(kept_bytes=3 * 1_200)
    for key in ("first", "second"):
        answers.put(key, 1, "a", body_of("a"), HEADERS)
    assert answers.get("first", 1, "b") is not None
    for key in ("third", "fourth"):
        answers.put(key, 1, "a", body_of("a"), HEADERS)
    found = [key for key in ("first", "second", "third", "fourth") if answers.get(key, 1, "b")]
    assert found == ["first", "third", "fourth"]
