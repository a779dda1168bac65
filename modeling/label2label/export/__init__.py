"""Leave PyTorch behind, and measure what a model weighs and costs."""

# As `label2label export` names its files.
FLOAT_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
BACKBONE_FILE = "backbone.onnx"
