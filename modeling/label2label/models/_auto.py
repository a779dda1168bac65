"""Register the models with transformers' Auto classes; `save_pretrained` copies their code."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
)

from .configuration_label2label import Label2LabelConfig
from .configuration_mobilefacenet import MobileFaceNetConfig
from .image_processing_label2label import Label2LabelImageProcessor
from .modeling_label2label import Label2LabelForImageClassification, Label2LabelModel
from .modeling_mobilefacenet import MobileFaceNetBackbone, MobileFaceNetModel

AutoConfig.register("mobilefacenet", MobileFaceNetConfig)
AutoModel.register(MobileFaceNetConfig, MobileFaceNetModel)
AutoBackbone.register(MobileFaceNetConfig, MobileFaceNetBackbone)
AutoConfig.register("label2label", Label2LabelConfig)
AutoModel.register(Label2LabelConfig, Label2LabelModel)
AutoModelForImageClassification.register(Label2LabelConfig, Label2LabelForImageClassification)
for _config_class in (MobileFaceNetConfig, Label2LabelConfig):
    AutoImageProcessor.register(
        _config_class, image_processor_classes={"pil": Label2LabelImageProcessor}
    )

# save_pretrained then copies the code beside the weights, for trust_remote_code.
MobileFaceNetConfig.register_for_auto_class()
MobileFaceNetModel.register_for_auto_class("AutoModel")
MobileFaceNetBackbone.register_for_auto_class("AutoBackbone")
Label2LabelConfig.register_for_auto_class()
Label2LabelModel.register_for_auto_class("AutoModel")
Label2LabelForImageClassification.register_for_auto_class("AutoModelForImageClassification")
Label2LabelImageProcessor.register_for_auto_class()
