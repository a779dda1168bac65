"""Export of models to ONNX, ncnn and the browser; model size and FLOPs."""

FLOAT_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
BACKBONE_FILE = "backbone.onnx"
