from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from advss.data.images import InMemory
from advss.data.sources import cifar10c
from advss.data.splits import Part

Pixels = NDArray[np.uint8]


def _noise(*shape: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _webp(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def write_parquet() -> Callable[[Path, list[bytes | None], list[int]], None]:
    def write(path: Path, images: list[bytes | None], labels: list[int]) -> None:
        names = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        structs = pa.array([{"bytes": content, "path": None} for content in images], kind)
        table = pa.table({"img": structs, "label": pa.array(labels, pa.int64())})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), path)

    return write


@pytest.fixture
def parquet_pixels() -> Pixels:
    """The 30 images that ``parquet_root`` holds: 20 to train on in two files, 10 to test."""
    return _noise(30, 8, 8, 3, seed=3)


@pytest.fixture
def parquet_root(
    tmp_path: Path, parquet_pixels: Pixels, write_parquet: Callable[[Path, list[bytes | None], list[int]], None]
) -> Path:
    webp: list[bytes | None] = [_webp(pixels) for pixels in parquet_pixels]
    labels = [i % 2 for i in range(30)]
    write_parquet(tmp_path / "data/train-00000-of-00002.parquet", webp[:12], labels[:12])
    write_parquet(tmp_path / "data/train-00001-of-00002.parquet", webp[12:20], labels[12:20])
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", webp[20:], labels[20:])
    return tmp_path


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    """Classes cat and dog, 10 training and 4 test images each, 8x8, all different."""
    root = tmp_path / "folder"
    for seed, split, count in ((0, "train", 10), (1, "test", 4)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i, pixels in enumerate(_noise(count, 8, 8, 3, seed=2 * seed + label)):
                Image.fromarray(pixels).save(root / split / name / f"{i:03}.png")
    return root


@pytest.fixture
def write_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Pixels], None]:
    """Write files in torchvision's layout, whose checksums are not looked at; image i is of class i."""

    def write(name: str, pixels: Pixels) -> None:
        kind: type = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: Path(path).is_file())
        folder = tmp_path / str(vars(kind)["base_folder"])
        folder.mkdir(parents=True)
        key = "labels" if name == "cifar10" else "fine_labels"
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        for file, _ in [*vars(kind)["train_list"], *vars(kind)["test_list"]]:
            (folder / file).write_bytes(pickle.dumps({"data": rows, key: list(range(len(pixels)))}))
        meta, names = vars(kind)["meta"], [f"class {i}" for i in range(len(pixels))]
        (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: names}))

    return write


@pytest.fixture
def write_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Pixels], None]:
    """Write STL-10's files for the same images in both splits; image i is of class i."""

    def write(pixels: Pixels) -> None:
        monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda path, md5: Path(path).is_file())
        folder = tmp_path / "stl10_binary"
        folder.mkdir()
        for split in ("train", "test"):
            (folder / f"{split}_X.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())  # columns first
            (folder / f"{split}_y.bin").write_bytes(bytes(range(1, len(pixels) + 1)))  # classes count from 1
        (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(len(pixels))))

    return write


@pytest.fixture
def corrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10-C's files of five severities of 10 images, each filled with its row's number."""
    monkeypatch.setattr(cifar10c, "IMAGES", 10)
    rows = np.arange(50, dtype=np.uint8)
    np.save(tmp_path / "fog.npy", np.broadcast_to(rows[:, None, None, None], (50, 32, 32, 3)))
    np.save(tmp_path / "labels.npy", rows % 10)
    return tmp_path


@pytest.fixture
def part() -> Part:
    """40 noise images of side 8 at places 100 to 139, of 2 classes in turn."""
    pixels = torch.from_numpy(_noise(40, 3, 8, 8, seed=5))
    return Part(InMemory(pixels), torch.arange(40) + 100, torch.arange(40) % 2)


def _square(level: int) -> bytes:
    """A square of one level."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """Write files of two rows each, of levels 0, 1, 2 ... in the order of writing; labels 0 and 1, or those given."""
    written: list[str] = []

    def write(*names: str, labels: Any = (0, 1), images: Any = None, **columns: Any) -> None:
        for name in names:
            first = 2 * len(written)
            written.append(name)
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = pa.array([_square(first), _square(first + 1)]) if images is None else images
            pq.write_table(pa.table({"image": content, "label": labels, **columns}), path)

    return write
