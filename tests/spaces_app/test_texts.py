"""Every language says everything, with the same blanks."""

import re

import pytest
from label2label.data.vocabulary import ATTRIBUTE_GROUPS, VOCABULARIES
from texts import TEXTS, say

from .conftest import SPACE


@pytest.mark.parametrize("language", sorted(set(TEXTS) - {"en"}))
def test_every_text_is_there_with_the_same_blanks(language):
    english, other = TEXTS["en"], TEXTS[language]
    assert set(english) == set(other)
    for key, text in english.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", other[key])), key
        assert other[key].strip(), key


@pytest.mark.parametrize("language", TEXTS)
def test_every_attribute_and_group_has_a_name(language):
    assert [name for name in ATTRIBUTE_GROUPS if f"group.{name}" not in TEXTS[language]] == []
    names = {name for vocabulary in VOCABULARIES.values() for name in vocabulary.attributes}
    assert [name for name in names if f"attribute.{name}" not in TEXTS[language]] == []


def test_every_text_that_the_code_asks_for_is_there():
    sources = [*SPACE.glob("*.py"), *SPACE.glob("page/*.js"), *SPACE.glob("page/*.html")]
    asked = set()
    for source in sources:
        asked |= set(
            re.findall(r'say\((?:language, |"en", )?["\']([\w.]+)["\']', source.read_text())
        )
    assert len(asked) > 40
    assert asked - set(TEXTS["en"]) - set(TEXTS) == set()
    codes = set()
    for source in sources:
        codes |= set(re.findall(r'(?:PhotoError|Refusal)\(\s*"(\w+)"', source.read_text()))
    assert {f"error.{code}" for code in codes} <= set(TEXTS["en"])


def test_blanks_are_filled():
    assert say("ko", "photo.face", number=2, count=3) == "얼굴 2 / 3"
    assert say("en", "photo.face", number=2, count=3) == "Face 2 of 3"
