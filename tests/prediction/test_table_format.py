"""The table puts first what a reader looks for."""

from label2label.prediction.command import format_entry

ATTRIBUTES = {"Bald": 0.02, "Smiling": 0.5, "Wearing_Hat": 0.91, "Young": 0.4}
FACE = {"box": [1.2, 2.0, 30.6, 40.0], "score": 0.934, "attributes": ATTRIBUTES}


HALF = dict.fromkeys(ATTRIBUTES, 0.5)


def test_attributes_that_are_present_come_first_and_surest_first():
    text = format_entry({"image": "a.jpg", "faces": [FACE]}, HALF, width=200)
    assert text.splitlines() == [
        "a.jpg: 1 face",
        "  face 1 at (1, 2) to (31, 40), score 0.93",
        "    yes Wearing Hat 91%  Smiling 50%",
        "    no  Young 40%  Bald 2%",
    ]


def test_threshold_moves_the_line():
    text = format_entry({"image": "a.jpg", "faces": [FACE]}, dict.fromkeys(ATTRIBUTES, 0.95))
    assert "yes (none)" in text
    assert "no  Wearing Hat 91%" in text


def test_every_attribute_has_a_threshold_of_its_own():
    text = format_entry({"image": "a.jpg", "faces": [FACE]}, HALF | {"Bald": 0.02, "Smiling": 0.6})
    assert "yes Wearing Hat 91%  Bald 2%" in text
    assert "no  Smiling 50%  Young 40%" in text


def test_every_line_fits_the_terminal():
    text = format_entry({"image": "a.jpg", "faces": [FACE, FACE]}, HALF, width=50)
    assert "a.jpg: 2 faces" in text
    assert "face 2" in text
    assert max(map(len, text.splitlines())) <= 50
    assert format_entry({"image": "a.jpg", "faces": [FACE]}, HALF, width=5).count("%") == 4


def test_photo_without_a_face_says_so():
    assert "no face found" in format_entry({"image": "a.jpg", "faces": []}, HALF)


def test_error_is_one_line():
    assert (
        format_entry({"image": "a.jpg", "error": "no such file"}, HALF)
        == "a.jpg: error: no such file"
    )


def test_file_name_that_is_no_text_can_be_printed():
    text = format_entry({"image": "caf\udce9.jpg", "faces": []}, HALF)
    assert text.encode("utf-8").startswith(b"caf")
