"""Write docs/api.md, the reference of the public Python API, from its docstrings.

python docs/api_reference.py
"""

import re
from pathlib import Path

import griffe
from griffe2md import ConfigDict, render_object_docs

DOCS = Path(__file__).parent
SOURCES = DOCS.parent / "modeling"

# What users import, by module; everything else may change.
PUBLIC = {
    "label2label.prediction.predictor": ["AttributePredictor"],
    "label2label.prediction.labelling": ["BatchLabeller"],
    "label2label.models.configuration_label2label": ["Label2LabelConfig"],
    "label2label.models.configuration_mobilefacenet": ["MobileFaceNetConfig"],
    "label2label.models.image_processing_label2label": ["Label2LabelImageProcessor"],
    "label2label.models.modeling_label2label": [
        "Label2LabelForImageClassification",
        "Label2LabelImageClassifierOutput",
        "Label2LabelModel",
        "Label2LabelModelOutput",
    ],
    "label2label.models.modeling_mobilefacenet": ["MobileFaceNetBackbone", "MobileFaceNetModel"],
    "label2label.data.vocabulary": ["Vocabulary", "get_vocabulary"],
    "label2label.data.loading": ["load_split", "label_array"],
    "label2label.faces.detection": ["FaceDetector"],
    "label2label.faces.alignment": ["align_face"],
    "label2label.training.recipe": ["Recipe", "load_recipe"],
    "label2label.evaluation.evaluate": ["evaluate_models"],
    "label2label.export.onnx": ["export_onnx"],
    "label2label.hub.model_card": ["model_card"],
    "label2label.errors": ["UserError"],
}

HEAD = """# API reference

Written by `python docs/api_reference.py` from the docstrings. What is not here may change.

"""
SETTINGS = ConfigDict(
    heading_level=2,
    docstring_section_style="list",
    show_if_no_docstring=False,
    show_root_full_path=True,
    show_root_members_full_path=False,
    show_object_full_path=False,
    show_submodules=False,
    summary=False,
    filters=["!^_(?!_call__)", "!^forward_", "!Kwargs$"],
)
SECTION = r"<details[^>]*>\n<summary>(?P<title>[^<]*)</summary>\n\n(?P<body>.*?)\n\n</details>"


def api_reference() -> str:
    """Render the reference.

    Returns:
        Markdown, the same for the same docstrings.
    """
    parts = [HEAD]
    for module, names in PUBLIC.items():
        loaded = griffe.load(
            module,
            search_paths=[str(SOURCES)],
            docstring_parser="google",
            docstring_options={"returns_multiple_items": False, "returns_named_value": False},
        )
        parts += [render_object_docs(loaded[name], SETTINGS).strip() + "\n\n" for name in names]
    text = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", "".join(parts))  # to anchors that are not here
    text = re.sub(
        SECTION, lambda found: _as_list(found["title"], found["body"]), text, flags=re.DOTALL
    )
    # Signatures are no examples, which docs show as "python" and a test runs.
    return text.replace("```python", "```py").rstrip() + "\n"


def _as_list(title: str, body: str) -> str:
    """A section of its own, such as one part of a recipe's keys, as the others are shown."""
    entries = re.sub(r"\n +", " ", body).splitlines()
    pairs = (entry.partition(": ") for entry in entries)
    return f"**{title}:**\n\n" + "\n".join(f"- **{name}** – {text}" for name, _, text in pairs)


if __name__ == "__main__":
    (DOCS / "api.md").write_text(api_reference(), encoding="utf-8")
