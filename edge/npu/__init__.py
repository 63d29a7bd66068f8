"""Qualcomm's NPU: its plugin for onnxruntime, its SoCs, context binaries and where every node of a graph runs."""
