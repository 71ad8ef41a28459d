"""Tokens of a text before anybody has counted them, beside what tiktoken's cl100k_base and o200k_base count."""

from __future__ import annotations

import pytest

from backplane.ports.token_estimate import text_tokens

ENGLISH = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience"
    " and should act towards one another in a spirit of brotherhood. Everyone is entitled to all the rights and"
    " freedoms set forth in this Declaration, without distinction of any kind, such as race, colour, sex, language,"
    " religion, political or other opinion, national or social origin, property, birth or other status."
)
GERMAN = (
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und"
    " sollen einander im Geiste der Brüderlichkeit begegnen. Jeder hat Anspruch auf alle in dieser Erklärung"
    " verkündeten Rechte und Freiheiten, ohne irgendeinen Unterschied, etwa nach Rasse, Hautfarbe, Geschlecht,"
    " Sprache, Religion, politischer oder sonstiger Anschauung, nationaler oder sozialer Herkunft, Vermögen, Geburt"
    " oder sonstigem Stand."
)
COUNTED = [
    (ENGLISH, 83, 83),
    (GERMAN, 124, 101),
    (
        "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。人人有资格享有本宣言所载的一切权利和自由,不分种族、肤色、"
        "性别、语言、宗教、政治或其他见解、国籍或社会出身、财产、出生或其他身分等任何区别。",
        127,
        95,
    ),
    ("😀🎉🚀🔥👍🏽🙈💡✅" * 20, 480, 280),
]


@pytest.mark.parametrize(("text", "smaller", "larger"), COUNTED)
def test_texts_are_not_far_off(text: str, smaller: int, larger: int) -> None:
    assert 0.8 * smaller < text_tokens(text) < 1.6 * larger


@pytest.mark.parametrize("text", ["", "a", "\ud800", "\x00" * 3])
def test_any_text_has_at_least_a_token(text: str) -> None:
    assert 1 <= text_tokens(text) <= 4


def test_no_text_is_free_because_it_is_odd() -> None:
    for text in ("        " * 1000, "é" * 1000, "\n" * 1000, "}" * 1000, "🙂" * 1000):
        assert text_tokens(text) >= 100
