"""Image processor of Label2label and of MobileFaceNet."""

from typing import Any, ClassVar

import numpy as np
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from PIL import Image, ImageOps
from transformers import PreTrainedConfig
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    infer_channel_dimension_format,
)
from transformers.processing_utils import ImagesKwargs

from .exclusive_answers import CELEBA_EXCLUSIVE_ANSWERS, decide_answers

MAX_SIDE = 4096  # pixels that an image may be resized or cropped to


class Label2LabelImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Arguments of image processors, with the crop's landmarks and the rules of decision."""

    alignment_template: list[list[float | int]] | None
    attributes: list[str] | None
    thresholds: list[float | int] | None
    exclusive_answers: list[list[str]] | None


class Label2LabelImageProcessor(PilBackend):
    r"""Turn face images into normalised pixels.

    Any PIL, numpy or torch image is converted to RGB, resized to a shortest edge of 112 pixels,
    cropped to the central 112x112 and normalised by ImageNet's mean and standard deviation.

    It always uses transformers' PIL backend, with or without torchvision, so that results are the
    same on every machine. EXIF orientation is applied; gray, palette, CMYK and 16-bit images
    become 8-bit RGB; transparent pixels are blended with white. Arrays are uint8 in 0..255, uint16
    in 0..65535, or floats and booleans in 0..1.

    Args:
        alignment_template (`list[list[float]]`, *optional*):
            The five landmarks' places, as (x, y) pixels, in the crops that the model was trained
            on: left and right eye, nose tip, left and right mouth corner, as the viewer sees them.
        attributes (`list[str]`, *optional*):
            Names of the attributes, in the order of the model's logits.
        thresholds (`list[float]`, *optional*):
            For each of `attributes`, the least probability, in 0..1, at which it counts as
            present; 0.5 by default. `label2label calibrate` fits them.
        exclusive_answers (`list[list[str]]`, *optional*):
            Groups of attributes of which at most one can be present (see `decide_answers`): by
            default those among CelebA's names; `[]` for none.

    Raises:
        ValueError: If a setting is invalid, such as a standard deviation of zero.
    """

    valid_kwargs = Label2LabelImageProcessorKwargs

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size: ClassVar = {"shortest_edge": 112}
    default_to_square = False
    crop_size: ClassVar = {"height": 112, "width": 112}
    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    # Means over CelebA's training images, mapped through this processor's own resize and crop
    # (benchmarks/alignment_template.py in the project's repository).
    alignment_template: ClassVar = [
        [44.11, 58.10],
        [68.38, 58.58],
        [55.67, 73.35],
        [45.26, 84.33],
        [65.80, 84.77],
    ]
    attributes: ClassVar = None
    thresholds: ClassVar = None
    exclusive_answers: ClassVar = CELEBA_EXCLUSIVE_ANSWERS

    def __init__(self, **kwargs: Any):
        names = self.valid_kwargs.__annotations__
        try:
            given = {name: value for name, value in kwargs.items() if name in names}
            validate_typed_dict(self.valid_kwargs, given)
            super().__init__(**kwargs)
            self._validate_preprocess_kwargs(**{name: getattr(self, name, None) for name in names})
        except (StrictDataclassError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"image processor: {' '.join(str(error).split())}") from error

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the settings, and take the attributes from the model in the same folder.

        A model fine-tuned to other attributes may have been saved with its former processor.
        """
        found = super().get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
        settings = found[0]
        try:
            config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
        except OSError:  # a processor without a model
            return found
        id2label, held = config.get("id2label"), settings.get("attributes")
        if isinstance(id2label, dict) and isinstance(held, list | None):
            names = [id2label[number] for number in sorted(id2label, key=int)]
            if names != held:
                thresholds = dict(zip(held or (), settings.get("thresholds") or (), strict=False))
                settings["attributes"] = names
                settings["thresholds"] = [thresholds.get(name, 0.5) for name in names]
        return found

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        super()._validate_preprocess_kwargs(**kwargs)

        def check(name: str, wanted: str, right: bool) -> None:
            if not right:
                raise ValueError(f"{name} must be {wanted}, got {str(kwargs[name])[:80]}")

        def within(values: Any, least: float = -1e6, most: float = 1e6) -> bool:
            return all(least <= value <= most for value in values)

        for name in ("size", "crop_size", "pad_size"):
            sides = dict(kwargs[name] or {}).values()
            check(name, f"of 1 to {MAX_SIDE} pixels", within(sides, 1, MAX_SIDE))
        for name, least in (("image_mean", -1e6), ("image_std", 1e-6), ("rescale_factor", 1e-9)):
            numbers = kwargs[name] if isinstance(kwargs[name], tuple) else (kwargs[name],) * 3
            wanted = f"one or three numbers of at least {least}"
            check(name, wanted, len(numbers) == 3 and within(numbers, least))
        points = kwargs["alignment_template"]
        right = len(points) == 5 and all(len(point) == 2 and within(point) for point in points)
        check("alignment_template", "five points (x, y)", right)
        names, thresholds = kwargs["attributes"], kwargs["thresholds"]
        if names is not None:
            check("attributes", "different names", 0 < len(names) == len(set(names)))
        if thresholds is not None:
            right = len(thresholds) == len(names or ()) and within(thresholds, 0, 1)
            check("thresholds", "a probability in 0..1 for each of attributes", right)

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> ImageInput:
        # transformers takes gray arrays only with a channel axis.
        images = list(images) if isinstance(images, list | tuple) else [images]
        images = [x[..., None] if getattr(x, "ndim", 3) == 2 else x for x in images]
        return super()._prepare_images_structure(images, expected_ndims=expected_ndims)

    def process_image(
        self,
        image: ImageInput,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Convert one image to 8-bit RGB.

        Args:
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): `(height, width)`, or with 1,
                3 or 4 channels first or last.
            do_convert_rgb (`bool`, *optional*): Ignored; the output is always RGB.
            input_data_format (`str`, *optional*): `"channels_first"` or `"channels_last"`; inferred
                by default.

        Returns:
            `np.ndarray` of shape `(3, height, width)`: uint8, or floats in 0..1 where a call turns
            off the rescaling of such floats.

        Raises:
            ValueError: If the image is empty or its values are out of range for its type.
        """
        rescaled = False
        if not isinstance(image, Image.Image):
            if hasattr(image, "detach"):  # a tensor, on any device
                image = image.detach().cpu()
                image = image.float() if image.is_floating_point() else image  # numpy lacks bf16
            image = np.asarray(image)
            floats = np.issubdtype(image.dtype, np.floating)
            rescaled = floats and self.do_rescale and not kwargs.get("do_rescale", True)
            image = _image_from_array(image, input_data_format)
        pixels = np.asarray(_to_rgb(image)).transpose(2, 0, 1)
        return pixels / np.float32(255) if rescaled else pixels

    def post_process_attributes(
        self,
        outputs: Any,
        threshold: float | None = None,
        id2label: dict[int, str] | None = None,
    ) -> list[dict[str, dict[str, Any]]]:
        """Turn a model's output into names, probabilities and decisions.

        An attribute is present if its probability reaches its threshold and no surer attribute
        excludes it (`decide_answers`). Probabilities stay the model's own.

        Args:
            outputs ([`Label2LabelImageClassifierOutput`]): With `logits` of shape `(batch,
                attributes)`, a tensor or an array.
            threshold (`float`, *optional*): One threshold in 0..1 for all attributes, instead of
                this processor's `thresholds`. Exclusive attributes stay exclusive.
            id2label (`dict[int, str]`, *optional*): Names of the attributes,
                `model.config.id2label`, instead of this processor's. Its thresholds are matched to
                them by name.

        Returns:
            `list[dict[str, dict]]`: for each image, by attribute name in the model's order, its
            `"probability"` in 0..1 and whether it is `"present"`.

        Raises:
            ValueError: If the attributes' names are unknown, or the logits do not match them.
        """
        if id2label:
            by_number = {int(number): name for number, name in id2label.items()}
            names = [by_number[number] for number in sorted(by_number)]
        else:
            names = self.attributes or []
        if not names:
            raise ValueError(
                "this image processor does not know the attributes' names: give "
                "id2label=model.config.id2label, or let `label2label calibrate` store them"
            )
        known: dict[str, float] = dict(
            zip(self.attributes or (), self.thresholds or (), strict=False)
        )
        thresholds = [known.get(name, 0.5) if threshold is None else threshold for name in names]
        logits = outputs.logits
        if hasattr(logits, "detach"):
            logits = logits.detach().float().cpu().numpy()
        logits = np.asarray(logits, dtype=np.float64)
        if logits.ndim != 2 or logits.shape[1] != len(names):
            raise ValueError(
                f"logits must be of shape (batch, {len(names)}), got {logits.shape}; give "
                "id2label=model.config.id2label if the model has other attributes"
            )
        probabilities = 0.5 * (1.0 + np.tanh(logits / 2))  # a sigmoid that cannot overflow
        present = decide_answers(probabilities, thresholds, names, self.exclusive_answers)
        return [
            {
                name: {"probability": float(p), "present": bool(decision)}
                for name, p, decision in zip(names, row, decisions, strict=True)
            }
            for row, decisions in zip(probabilities, present, strict=True)
        ]


def _image_from_array(
    array: np.ndarray, input_data_format: str | ChannelDimension | None
) -> Image.Image:
    if array.size == 0:
        raise ValueError(f"the image is empty: its shape is {array.shape}")
    if array.ndim == 3:
        layout = input_data_format or infer_channel_dimension_format(array, num_channels=(1, 3, 4))
        if ChannelDimension(layout) == ChannelDimension.FIRST:
            array = array.transpose(1, 2, 0)
        if array.shape[-1] == 1:
            array = array[..., 0]
    if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"float images must be in 0..1, got {array.min():.3g}..{array.max():.3g}"
            )
        array = np.round(array * 255.0)
    elif array.dtype == np.uint16:
        array = array // 257
    elif array.min() < 0 or array.max() > 255:
        raise ValueError(f"integer images must be in 0..255, got {array.min()}..{array.max()}")
    return Image.fromarray(array.astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        values = np.asarray(image)
        scale = 257 if values.max() > 255 or image.mode.startswith("I;16") else 1
        image = Image.fromarray((values // scale).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


__all__ = ["Label2LabelImageProcessor"]
