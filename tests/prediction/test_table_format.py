"""The table puts first what a reader looks for."""

from label2label.prediction.command import format_entry

ATTRIBUTES = {"Bald": 0.02, "Smiling": 0.5, "Wearing_Hat": 0.91, "Young": 0.4}
FACE = {
    "box": [1.2, 2.0, 30.6, 40.0],
    "score": 0.934,
    "attributes": ATTRIBUTES,
    "present": ["Wearing_Hat", "Smiling"],
}


def test_attributes_that_are_present_come_first_and_surest_first():
    text = format_entry({"image": "a.jpg", "faces": [FACE]}, width=200)
    assert text.splitlines() == [
        "a.jpg: 1 face",
        "  face 1 at (1, 2) to (31, 40), score 0.93",
        "    yes Wearing Hat 91%  Smiling 50%",
        "    no  Young 40%  Bald 2%",
    ]


def test_what_is_present_is_decided_before():
    text = format_entry({"image": "a.jpg", "faces": [{**FACE, "present": []}]})
    assert "yes (none)" in text
    assert "no  Wearing Hat 91%" in text
    text = format_entry({"image": "a.jpg", "faces": [{**FACE, "present": ["Bald"]}]})
    assert "yes Bald 2%" in text
    assert "no  Wearing Hat 91%  Smiling 50%" in text


def test_every_line_fits_the_terminal():
    text = format_entry({"image": "a.jpg", "faces": [FACE, FACE]}, width=50)
    assert "a.jpg: 2 faces" in text
    assert "face 2" in text
    assert max(map(len, text.splitlines())) <= 50
    assert format_entry({"image": "a.jpg", "faces": [FACE]}, width=5).count("%") == 4


def test_photo_without_a_face_says_so():
    assert "no face found" in format_entry({"image": "a.jpg", "faces": []})


def test_error_is_one_line():
    assert format_entry({"image": "a.jpg", "error": "no such file"}) == "a.jpg: error: no such file"


def test_file_name_that_is_no_text_can_be_printed():
    text = format_entry({"image": "caf\udce9.jpg", "faces": []})
    assert text.encode("utf-8").startswith(b"caf")
