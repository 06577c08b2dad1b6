"""Lets a torchvision built for GPUs be imported beside a torch built for CPUs: `pytest -p tests.torchvision_names`.

Its compiled operators need CUDA's libraries, and its import fails because their names are unknown. Processors use none of them, so
declaring the names is enough.
"""

import torch

BOXES = ("roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align", "_ps_roi_align_backward")
MORE = ("nms", "qnms", "ps_roi_pool", "_ps_roi_pool_backward", "qroi_align", "deform_conv2d", "_deform_conv2d_backward")

LIBRARY = torch.library.Library("torchvision", "DEF")
for name in (*BOXES, *MORE):
    LIBRARY.define(f"{name}() -> ()")
