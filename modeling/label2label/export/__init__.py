"""Export of models to ONNX, ncnn and the browser."""
