"""The harness: any method on any set through mmengine's ``Runner.test()``.

Importing this registers, with mmsegmentation,
:class:`~mgca.evaluation.mmseg.segmentor.OpenVocabulary`, the transforms of
:mod:`mgca.evaluation.mmseg.sets`, the metric of :mod:`mgca.evaluation.mmseg.metric` and the data
sets of :mod:`mgca.data.benchmarks.datasets`, so that a configuration of mmsegmentation's own tools
needs one line more::

    custom_imports = dict(imports=["mgca.evaluation.mmseg"])

It needs the extra ``benchmarks``.
"""

import contextlib
import io
import warnings

from mgca.utils import torchvision as _torchvision

_torchvision.make_importable()

try:
    # mmsegmentation prints that it lacks the client of a commercial service, and mmcv warns that
    # its lite edition lacks an operator. Neither is used here, nor anything to be done about.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mgca.data.benchmarks.datasets import COCOObjectDataset, PascalVOC20Dataset
        from mgca.evaluation.mmseg.metric import UnitIoU
        from mgca.evaluation.mmseg.segmentor import OpenVocabulary
        from mgca.evaluation.mmseg.sets import MaskedImages, OpenImage, OpenMask
except ModuleNotFoundError as error:
    raise ImportError(
        f"the harness needs mmsegmentation ({error}): pip install 'mgca[benchmarks]'"
    ) from error

__all__ = [
    "COCOObjectDataset",
    "MaskedImages",
    "OpenImage",
    "OpenMask",
    "OpenVocabulary",
    "PascalVOC20Dataset",
    "UnitIoU",
]
