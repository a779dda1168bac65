"""Image processor of Label2label and of MobileFaceNet."""

from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageOps
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


class Label2LabelImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Adds the crop's landmarks and the attributes' thresholds to what image processors take."""

    alignment_template: list[list[float]] | None
    attributes: list[str] | None
    thresholds: list[float] | None


class Label2LabelImageProcessor(PilBackend):
    r"""
    Turns faces into normalised pixels: any PIL, numpy or torch image to RGB, its shortest edge to
    112 pixels, the centre 112x112, mean and standard deviation of ImageNet.

    It is transformers' PIL backend whether or not torchvision is installed, so that the numbers are
    the same on every machine. EXIF orientation is applied; gray, palette, CMYK and 16-bit images
    become 8-bit RGB; transparency is laid over white. Arrays are uint8 in 0..255, uint16 in
    0..65535, or floats and booleans in 0..1.

    Args:
        alignment_template (`list[list[float]]`, *optional*):
            Where a face's five landmarks lie in the crop that the model was trained on, as (x, y)
            pixels: the viewer's left eye and right eye, nose tip, left and right mouth corner.
        attributes (`list[str]`, *optional*):
            Names of the attributes, in the order of the model's logits.
        thresholds (`list[float]`, *optional*):
            For each of `attributes`, the probability in 0..1 from which it counts as present;
            `label2label calibrate` fits them. Without it they are 0.5.
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
    # Means over CelebA's training images, mapped through this processor's own resize and crop.
    alignment_template: ClassVar = [
        [43.72, 58.60],
        [68.00, 58.15],
        [55.91, 73.23],
        [45.95, 84.16],
        [66.84, 83.69],
    ]
    attributes: ClassVar = None
    thresholds: ClassVar = None

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> ImageInput:
        # transformers takes gray arrays only with an axis of channels.
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
        """
        Converts one image to 8-bit RGB.

        Args:
            image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): `(height, width)`, or with 1,
                3 or 4 channels first or last.
            do_convert_rgb (`bool`, *optional*): Kept for transformers' interface; the output is
                always RGB.
            input_data_format (`str`, *optional*): `"channels_first"` or `"channels_last"`; inferred
                by default.

        Returns:
            `np.ndarray` of shape `(3, height, width)`, uint8.

        Raises:
            ValueError: If the image is empty or its values are out of the range that its type
                allows.
        """
        if not isinstance(image, Image.Image):
            image = _image_from_array(np.asarray(image), input_data_format)
        return np.asarray(_to_rgb(image)).transpose(2, 0, 1)

    def post_process_attributes(
        self,
        outputs: Any,
        threshold: float | None = None,
        id2label: dict[int, str] | None = None,
    ) -> list[dict[str, dict[str, Any]]]:
        """
        Turns a model's output into names, probabilities and decisions.

        Args:
            outputs ([`Label2LabelImageClassifierOutput`]): With `logits` of shape `(batch,
                attributes)`, a tensor or an array.
            threshold (`float`, *optional*): Probability in 0..1 from which every attribute counts
                as present, instead of the `thresholds` that this processor holds.
            id2label (`dict[int, str]`, *optional*): Names of the attributes,
                `model.config.id2label`; only needed where this processor does not hold them.

        Returns:
            `list[dict[str, dict]]`: for each image, by attribute, in the model's order, its
            `"probability"` in 0..1 and whether it is `"present"`.

        Raises:
            ValueError: If the attributes' names are unknown, or the logits are not theirs.
        """
        id2label = id2label or {}
        names = self.attributes or [id2label[i] for i in sorted(id2label, key=int)]
        if not names:
            raise ValueError(
                "this image processor does not know the attributes' names: give "
                "id2label=model.config.id2label, or let `label2label calibrate` store them"
            )
        thresholds = self.thresholds or [0.5] * len(names)
        if threshold is not None:
            thresholds = [threshold] * len(names)
        logits = outputs.logits
        if hasattr(logits, "detach"):
            logits = logits.detach().float().cpu().numpy()
        logits = np.asarray(logits, dtype=np.float64)
        if logits.ndim != 2 or logits.shape[1] != len(names):
            raise ValueError(f"logits must be of shape (batch, {len(names)}), got {logits.shape}")
        probabilities = 0.5 * (1.0 + np.tanh(logits / 2))  # a sigmoid that cannot overflow
        return [
            {
                name: {"probability": float(p), "present": bool(p >= least)}
                for name, least, p in zip(names, thresholds, row, strict=True)
            }
            for row in probabilities
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
