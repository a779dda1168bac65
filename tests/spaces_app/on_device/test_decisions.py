"""The page decides as Python does, so that no answer contradicts another."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.models.exclusive_answers import CELEBA_EXCLUSIVE_ANSWERS, decide_answers

from ..conftest import PAGE

CHAIN = [["Male", "Young"], ["Young", "Chubby"], ["Smiling", "Chubby", "Unheard_Of"]]


@pytest.mark.parametrize("rules", [CELEBA_EXCLUSIVE_ANSWERS, CHAIN, []])
def test_decisions_are_those_of_python(rules):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js")
    draw = np.random.default_rng(0)
    probabilities = draw.random((400, 40)).round(4)
    probabilities[:20] = (probabilities[:20] > 0.3).astype(float)  # 0 and 1 have no odds
    thresholds = draw.uniform(0.1, 0.6, 40).round(2)
    page = {
        "attributes": list(CELEBA_ATTRIBUTES),
        "thresholds": thresholds.tolist(),
        "exclusive_answers": rules,
    }
    script = (PAGE / "decisions.js").read_text() + (
        f"\nconst decide = makeDecider({json.dumps(page)});"
        f"\nconst rows = {json.dumps(probabilities.tolist())};"
        "\nconsole.log(JSON.stringify(rows.map(decide)));"
    )
    command = [node, "--input-type=module", "-"]
    told = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    expected = decide_answers(probabilities, thresholds, CELEBA_ATTRIBUTES, rules)
    assert json.loads(told.stdout) == expected.tolist()
    changed = (expected != (probabilities >= thresholds)).any(axis=1).mean()
    assert changed > 0.5 if rules else changed == 0
