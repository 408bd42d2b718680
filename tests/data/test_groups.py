"""Super classes made of class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo

from advss.data.options import make_source
from advss.data.sources.groups import Groups
from advss.data.splits import Splits, open_splits
from advss.errors import UsageError

FOLDERS = ("ant", "beetle", "poodle", "sofa", "tabby")  # in train two images each, of a level that tells the folder
Read = Callable[..., Splits]


def _write(root: Path, *names: str, count: int = 2) -> None:
    for split in ("train", "test"):
        for level, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (4, 4), (level % 256, i, level // 256)).save(root / split / name / f"{i}.png")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    _write(tmp_path / "pets", *FOLDERS)

    def read(text: str, **options: Any) -> Splits:
        (tmp_path / "groups.yaml").write_text(text)
        return open_splits("imagefolder", {"root": tmp_path / "pets", "groups": tmp_path / "groups.yaml", **options})

    return read


def _levels(splits: Splits, name: str) -> set[int]:
    """The levels of the test images of a class."""
    chosen = (splits.test.labels == splits.classes.index(name)).nonzero().squeeze(1)
    return set(splits.test.images.read(chosen)[:, 0, 0, 0].tolist())


# ---------------------------------------------------------------- what is read
def test_classes_are_the_groups_in_the_order_of_the_file(read: Read) -> None:
    assert read("pet: [tabby, poodle]\ninsect: [ant, beetle]\n").classes == ("pet", "insect")


def test_images_of_a_group_are_those_of_its_folders(read: Read) -> None:
    splits = read("pet: [tabby, poodle]\ninsect: [ant, beetle]\n")
    assert (_levels(splits, "pet"), _levels(splits, "insect")) == ({2, 4}, {0, 1})


def test_folders_in_no_group_are_left_out_and_counted_once(read: Read) -> None:
    splits = read("pet: [tabby, poodle]\nbug: [beetle]\n")
    assert (len(splits.test), splits.passed_over) == (6, {"class folders in no group": 2})


def test_a_share_is_tested_on_of_each_group(tmp_path: Path, read: Read) -> None:
    splits = read("pet: [tabby, poodle]\ninsect: [ant, beetle]\n", root=tmp_path / "pets/train", test_share=0.5)
    assert splits.test.labels.tolist() == [0, 0, 1, 1]


def test_images_of_a_group_are_validated_on_where_there_are_some(tmp_path: Path, read: Read) -> None:
    _write(tmp_path / "more", *FOLDERS, count=3)
    (tmp_path / "more/test").rename(tmp_path / "pets/val")
    splits = read("pet: [tabby, poodle]\ninsect: [ant]\n")
    assert splits.valid.labels.bincount().tolist() == [6, 3]


def test_test_images_alone_have_the_same_labels(tmp_path: Path, read: Read) -> None:
    text = "pet: [tabby, poodle]\ninsect: [ant]\n"
    whole = read(text).test.labels
    (tmp_path / "pets/train").rename(tmp_path / "gone")
    options = {"root": tmp_path / "pets", "groups": tmp_path / "groups.yaml"}
    assert torch.equal(open_splits("imagefolder", options, parts=["test"]).test.labels, whole)


def test_the_order_of_folders_within_a_group_is_of_no_account(read: Read) -> None:
    first, second = (read(f"pet: {pets}\nbug: [ant]\n").fingerprint for pets in ("[tabby, poodle]", "[poodle, tabby]"))
    assert first == second


@pytest.mark.parametrize(
    "text", ["pet: [tabby, sofa]\ninsect: [ant, beetle]\n", "pet: [tabby]\ninsect: [ant, beetle]\n"]
)
def test_other_groups_of_the_same_names_are_other_data(read: Read, text: str) -> None:
    first = read("pet: [tabby, poodle]\ninsect: [ant, beetle]\n").fingerprint
    assert "test images" in read(text).fingerprint.of("test").unlike(first.of("test"))


@pytest.mark.parametrize("name", ["007", "no", "1e3", "12"])
def test_folders_are_called_as_the_file_has_them(tmp_path: Path, name: str) -> None:
    _write(tmp_path, name, "ant")
    (tmp_path / "groups.yaml").write_text(f"odd: [{name}]\nbug: [ant]\n")
    source = make_source("imagefolder", {"root": tmp_path, "groups": tmp_path / "groups.yaml"})
    assert source.classes() == ("odd", "bug")


# ---------------------------------------------------------------- ImageNet
SYNSETS = ImageNetInfo("imagenet-1k")


def _wnid(index: int) -> str:
    return str(SYNSETS.index_to_label_name(index))


def test_indices_are_classes_of_imagenet(tmp_path: Path) -> None:
    # Chihuahua, Japanese spaniel; tabby: the first line of each in the synset list of ILSVRC 2012
    there = ("n02085620", "n02085782", "n02123045", "n03063599")
    (tmp_path / "groups.yaml").write_text("dog: [151-152]\ncat: [281]\n")
    found = Groups(tmp_path / "groups.yaml").by_folder(tmp_path, there)
    assert found == {"n02085620": "dog", "n02085782": "dog", "n02123045": "cat"}


def test_restricted_imagenet_is_as_published() -> None:
    every = [_wnid(index) for index in range(1000)]
    found = Groups("restricted-imagenet").by_folder(Path(), every)
    sizes = {name: list(found.values()).count(name) for name in Groups("restricted-imagenet").names}
    # the lengths of the ranges in Tsipras et al. 2019 (arXiv 1805.12152)
    assert sizes == {
        "dog": 118,
        "cat": 5,
        "frog": 3,
        "turtle": 5,
        "bird": 21,
        "primate": 18,
        "fish": 9,
        "crab": 4,
        "insect": 20,
    }
    assert (found["n02123045"], found["n02085620"], found["n01641577"]) == ("cat", "dog", "frog")


def test_imagenet_m10_is_of_ten_balanced_classes() -> None:
    every = [_wnid(index) for index in range(1000)]
    found = list(Groups("imagenet-m10").by_folder(Path(), every).values())
    assert {name: found.count(name) for name in found} == dict.fromkeys(Groups("imagenet-m10").names, 6)
    assert len(set(found)) == 10


def test_a_packaged_grouping_is_an_option(tmp_path: Path) -> None:
    names = [_wnid(i) for i in (*range(30, 38), *range(80, 101), *range(118, 122), *range(151, 269))]
    names += [_wnid(i) for i in (*range(281, 286), *range(300, 320), *range(365, 383), *range(389, 398), 0)]
    _write(tmp_path, *names, count=1)
    splits = open_splits("imagefolder", {"root": str(tmp_path), "groups": "restricted-imagenet"})
    assert (len(splits.test), splits.classes[0], splits.passed_over) == (203, "dog", {"class folders in no group": 1})


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pet: [taby]", r"groups\.yaml: 'pet' has 'taby', no class folder of '.*train'; did you mean 'tabby'\?$"),
        ("a: [ant]\nb: [ant]", r"groups\.yaml: 'ant' stands in 'b' and in 'a'; leave it in one place$"),
        ("a: [ant, ant]", r"groups\.yaml: 'ant' stands twice in 'a'; leave it in one place$"),
        ("a: [ant]\na: [sofa]", r"groups\.yaml: not YAML: 'a' stands twice"),
        ("a: []", r"groups\.yaml: 'a' is empty; name its class folders, or take it out$"),
        ("a: ant", r"groups\.yaml: 'a' must be a list of class folders, as in `a: \[n02085620\]`$"),
        ("a: {ant: b}", r"groups\.yaml: 'a' must be a list of class folders"),
        ("a: [[ant]]", r"groups\.yaml: 'a' must be a list of class folders"),
        ("[ant]", r"groups\.yaml: must be a mapping of lists, as in `dog: \["),
        ("", r"groups\.yaml: must be a mapping of lists"),
        ("a: [ant", r"groups\.yaml: not YAML: while parsing"),
        ("a: [151-1000]", r"'151-1000' is no class folder, nor classes of ImageNet, 0 to 999$"),
        ("a: [9-3]", r"'9-3' is no class folder, nor classes of ImageNet"),
    ],
)
def test_groups_that_are_refused(read: Read, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(text)


def test_a_group_whose_folder_is_missing_from_one_split(tmp_path: Path, read: Read) -> None:
    (tmp_path / "pets/test/ant").rename(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"'bug' has 'ant', no class folder of '.*/test'$"):
        read("pet: [tabby]\nbug: [ant]\n")


def test_no_such_file(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file '.*/restricted-imagnet', .*; did you mean 'restricted-imagenet'\?$"):
        read("", groups=tmp_path / "restricted-imagnet")


def test_a_folder_is_no_file_of_groups(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.groups .*: cannot read it: Is a directory$"):
        read("", groups=tmp_path)
