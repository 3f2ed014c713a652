"""A trained model as one file that runs without this package: ONNX, or a program of `torch.export`.

Both take a batch of any size and carry class names, preprocessing and the temperature with them.
"""
import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import nn

from ..errors import UserError
from ..utils.files import open_atomic

FORMATS = {'onnx': 'model.onnx', 'torch-export': 'model.pt2'}
METADATA = 'metadata.json'  # the extra file in a program of torch.export
TOLERANCE = 1e-3  # of a probability: other kernels, other rounding
BATCHES = (1, 3)  # of sizes that the export did not see

Run = Callable[[torch.Tensor], torch.Tensor]


def metadata_of(config: Dict[str, Any], names: Optional[List[str]], temperature: Optional[float]) -> Dict[str, Any]:
    """Return what a user of the file needs beside it.

    Args:
        config: Preprocessing, in timm's terms.
        names: Classes, in the order of the outputs.
        temperature: What logits are divided by before softmax, if one was fitted.
    """
    kept = ('input_size', 'mean', 'std', 'crop_pct', 'interpolation', 'crop_mode')
    preprocessing = {key: list(config[key]) if isinstance(config[key], tuple) else config[key] for key in kept}
    return dict(label_names=names, preprocessing=preprocessing, temperature=temperature)


def deploy(model: nn.Module, folder: Path, kind: str, metadata: Dict[str, Any]) -> Dict[str, Any]:
    """Write a model in another format and check it against the model itself.

    Args:
        model: A timm model.
        folder: Where the file goes.
        kind: 'onnx' or 'torch-export'.
        metadata: From `metadata_of`.

    Returns:
        `file`, `bytes`, `difference` (largest of a probability), and milliseconds for one image, `ms` in the new format
        and `ms_before` in PyTorch.

    Raises:
        UserError: The extra is missing, the model cannot be exported, or what came out says something else.
    """
    model = model.cpu().float().eval()
    size = tuple(metadata['preprocessing']['input_size'])
    path = folder / FORMATS[kind]
    write, load = (_write_onnx, _load_onnx) if kind == 'onnx' else (_write_program, _load_program)
    _check_extra(kind)
    scratch = path.with_name(f'.half-{path.name}')
    try:
        write(model, scratch, torch.zeros(2, *size), metadata)
        run = load(scratch)
        difference = max(_difference(model, run, torch.randn(n, *size, generator=torch.Generator().manual_seed(n)))
                         for n in BATCHES)
        if not difference <= TOLERANCE:
            raise UserError(f'--format {kind}: the exported model says something else (a probability differs by '
                            f'{difference:.2g}), so nothing was written.')
        with open_atomic(path, binary=True) as stream:
            stream.write(scratch.read_bytes())
    except UserError:
        raise
    except Exception as error:  # exporters fail in their own ways; the first line says what they cannot do
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f'--format {kind}: the model cannot be exported: {said}') from error
    finally:
        scratch.unlink(missing_ok=True)
    image = torch.zeros(1, *size)
    return dict(file=str(path), bytes=path.stat().st_size, difference=difference, ms=_milliseconds(run, image),
                ms_before=_milliseconds(model, image))


def _check_extra(kind: str) -> None:
    if kind != 'onnx':
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs the extra ({error.name} is missing): "
                        "pip install 'timm-smalldata[onnx]'.") from error


def _write_onnx(model: nn.Module, path: Path, example: torch.Tensor, metadata: Dict[str, Any]) -> None:
    import onnx
    from timm.utils.onnx import onnx_export
    onnx_export(model, str(path), example, use_dynamo=True, input_names=['image'], output_names=['logits'])
    written = onnx.load(str(path))
    onnx.helper.set_model_props(written, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(written, str(path))


def _load_onnx(path: Path) -> Run:
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(None, {'image': images.numpy()})[0])


def _write_program(model: nn.Module, path: Path, example: torch.Tensor, metadata: Dict[str, Any]) -> None:
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim('batch')},), strict=False)
    with open(path, 'wb') as stream:
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(metadata)})


def _load_program(path: Path) -> Run:
    with open(path, 'rb') as stream:
        return torch.export.load(stream).module()


@torch.no_grad()
def _difference(model: nn.Module, run: Run, images: torch.Tensor) -> float:
    return (model(images).softmax(-1) - run(images).softmax(-1)).abs().max().item()


@torch.no_grad()
def _milliseconds(run: Run, image: torch.Tensor, most: int = 30) -> float:
    """Return the median time of an image."""
    times = []
    for _ in range(most):
        started = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - started)
    return 1000 * sorted(times[2:])[(most - 2) // 2]
