"""The metrics of `label2label.evaluation.metrics` as one `evaluate.Metric`.

`evaluate.load` takes the path of this file and needs no network. With a second name it computes
one score instead of all:

    metric = evaluate.load(label2label.evaluation.MULTI_ATTRIBUTE)
    metric = evaluate.load(label2label.evaluation.MULTI_ATTRIBUTE, "balanced_accuracy")
"""

import datasets
import evaluate
import numpy

from label2label.evaluation import metrics

_DESCRIPTION = """
Mean accuracy over images and attributes, balanced accuracy, F1, average precision and expected
calibration error of multi-attribute predictions, overall and per attribute.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: probabilities that each attribute is present, (images, attributes), 0 to 1.
    references: labels, (images, attributes), 1 present, 0 absent, -100 unknown and not counted.

Returns:
    The overall scores by name, and `per_attribute`: name of a score to a list with one value an
    attribute. A score that is undefined (an attribute without known labels) is NaN and does not
    count in the overall one.

Raises:
    ValueError: if predictions and references are not of the same images and attributes.
"""

_CITATION = """
@inproceedings{li2022label2label,
  title={Label2Label: A Language Modeling Framework for Multi-Attribute Learning},
  author={Li, Wanhua and Cao, Zhexuan and Feng, Jianjiang and Zhou, Jie and Lu, Jiwen},
  booktitle={European Conference on Computer Vision},
  year={2022}
}
"""


class MultiAttribute(evaluate.Metric):
    """Scores of multi-attribute predictions; null labels (-100) never count.

    `add_batch` takes batches of any size. Given `num_process` and `process_id`, each process adds
    its share and the first one computes over all of them.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", *metrics.PER_ATTRIBUTE):
            raise ValueError(
                f"no score {self.config_name!r}: choose one of {', '.join(metrics.PER_ATTRIBUTE)}"
            )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int32")),
                }
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[int]]
    ) -> dict[str, float | dict[str, list[float]]]:
        shapes = {tuple(map(len, predictions)), tuple(map(len, references))}
        if len(shapes) > 1 or len(set(shapes.pop())) != 1:
            raise ValueError(
                f"{len(predictions)} predictions and {len(references)} references are not of the "
                "same images and attributes"
            )
        probabilities, labels = numpy.asarray(predictions), numpy.asarray(references)
        names = list(metrics.PER_ATTRIBUTE) if self.config_name == "default" else [self.config_name]
        overall = metrics.overall_scores(probabilities, labels)
        return {name: float(overall[name]) for name in names} | {
            "per_attribute": {
                name: metrics.PER_ATTRIBUTE[name](probabilities, labels).tolist() for name in names
            }
        }
