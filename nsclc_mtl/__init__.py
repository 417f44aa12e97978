"""One multimodal, multitask model from slides, scans, omics and clinical tables, with statistics that hold up."""

__version__ = "0.1.0"

from nsclc_mtl.cpu_torchvision import beside_cpu_torch

beside_cpu_torch()
