"""Transferred attacks, counted and drawn: which examples succeed on which models, Table 4 and Figure 5 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advss.figures import LOOKS, Look, look, new_figure, plain, save_figure, short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 15  # regions that a bar plot shows, the largest
ALPHA = 0.6  # of a set in a Venn diagram

Regions = dict[tuple[str, ...], set[int]]


def exclusive_regions(sets: Mapping[str, Set[int]]) -> Regions:
    """The regions of a Venn diagram of any number of sets: names -> what lies in these sets and in no other.

    Empty regions are left out; those of fewer sets come first.
    """
    regions: Regions = {}
    for element in sorted(set().union(*sets.values())):
        names = tuple(name for name, members in sets.items() if element in members)
        regions.setdefault(names, set()).add(element)
    place = {name: index for index, name in enumerate(sets)}
    return dict(sorted(regions.items(), key=lambda item: (len(item[0]), [place[name] for name in item[0]])))


def overlap(sets: Mapping[str, Set[int]]) -> dict[str, Any]:
    """How far sets of test images, by attacked model, are the same.

    Returns:
        ``regions``: a list of ``models``, ``count`` and ``share`` of the images in these models' sets alone; ``union``:
        the number of images in any set, of which ``share`` is a fraction; ``not_shared``: the share of the union that
        does not lie in every set, 0 for equal sets, None for a single set or an empty union.
    """
    regions = exclusive_regions(sets)
    union = sum(map(len, regions.values()))
    counted = [{"models": list(n), "count": len(found), "share": len(found) / union} for n, found in regions.items()]
    shared = len(regions.get(tuple(sets), ()))
    return {
        "regions": counted,
        "union": union,
        "not_shared": 1 - shared / union if union and len(sets) > 1 else None,
    }


def draw_asr(outcome: Mapping[str, Any], path: Path) -> tuple[Path, Path]:
    """Write both ASR matrices as heat maps with their numbers in per cent; returns the files.

    Left as in Table 4, over all images; right over those that both models have right unperturbed.
    """
    labels = short_labels(outcome["models"])
    side = 1.6 + 0.9 * len(labels)
    figure = new_figure(width=2 * side + 1.6, height=side + 0.4)
    panels = figure.subplots(1, 2)
    titles = ("ASR = 1 - RA, of all images", "ASR of images both have right")
    for axes, title, rates in zip(panels, titles, (outcome["asr"], outcome["asr_both_right"]), strict=True):
        image = _heat_map(axes, labels, [[math.nan if rate is None else 100 * rate for rate in row] for row in rates])
        axes.set_title(title, fontsize="medium")
    panels[0].set(xlabel="attack made on", ylabel="attacked")
    figure.colorbar(image, ax=list(panels), label="ASR, %", shrink=0.8)
    return save_figure(figure, path)


def _heat_map(axes: Any, labels: Sequence[str], rates: Sequence[Sequence[float]]) -> Any:
    """One matrix of per cents; what is not a number stays empty."""
    image = axes.imshow(rates, vmin=0, vmax=100, cmap="Reds")
    for row, column in ((r, c) for r in range(len(labels)) for c in range(len(labels))):
        rate = rates[row][column]
        text = "-" if math.isnan(rate) else f"{rate:.2f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if rate > 60 else "black")
    labels = list(map(plain, labels))
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    return image


def draw_overlap(outcome: Mapping[str, Any], path: Path) -> tuple[Path, Path]:
    """Write, for each source, on which models its examples succeed; returns the files.

    Of three models, Venn diagrams of the two others, as in Figure 5; else bars, of all models where there are two.
    Only images that every model has right unperturbed count: what a model has wrong anyway is no success of an attack.
    """
    right = set(outcome["all_right"])
    labels = outcome["models"]
    short = dict(zip(labels, short_labels(labels), strict=True))
    panels = [
        {
            short[name]: right.intersection(places)
            for name, places in outcome["sets"][source].items()
            if name != source or len(short) == 2
        }
        for source in labels
    ]
    figure = _venns(panels, list(short.values())) if len(short) == 3 else _bars(list(map(exclusive_regions, panels)))
    figure.suptitle(f"of the {len(right)} images that every model has right unperturbed", fontsize="medium")
    for axes, label in zip(figure.axes, short.values(), strict=True):
        axes.set_title(plain(f"attack made on {label}"), fontsize="medium")
    return save_figure(figure, path)


def _venns(panels: Sequence[Mapping[str, set[int]]], labels: Sequence[str]) -> Figure:
    """A diagram of two sets for each of three sources, one look a model."""
    from matplotlib.patches import Patch

    looks = {name: look(place) for place, name in enumerate(labels)}
    figure = new_figure(width=4 * len(panels), height=4.2)
    for axes, sets in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.set_axis_off()
        if any(sets.values()):
            _venn(axes, list(sets.values()), [looks[name] for name in sets])
        else:
            axes.text(0.5, 0.5, "none succeeds", ha="center")
    handles = [Patch(**one.of_area, alpha=ALPHA, label=plain(f"succeeds on {name}")) for name, one in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _venn(axes: Any, sets: Sequence[set[int]], looks: Sequence[Look]) -> None:
    """One diagram of two sets; what both have is hatched as either."""
    from matplotlib_venn import venn2

    diagram = venn2(tuple(sets), set_labels=None, set_colors=tuple(one.colour for one in looks), alpha=ALPHA, ax=axes)
    first, second = (one.hatch for one in looks)
    for region, hatch in (("10", first), ("01", second), ("11", first + second)):
        if patch := diagram.get_patch_by_id(region):
            patch.set(hatch=hatch, edgecolor="white")


def _bars(panels: Sequence[Regions]) -> Figure:
    """Exclusive regions, the largest of them, one panel a source."""
    kept = [_largest(regions) for regions in panels]
    lines = max([sum(map(len, regions)) for regions in kept], default=1)
    figure = new_figure(width=4.5 * len(panels), height=1.5 + 0.25 * max(lines, 4))
    for axes, regions in zip(figure.subplots(1, len(panels)), kept, strict=True):
        labels = ["\n+ ".join(map(plain, names)) for names in regions]
        bars = axes.barh(labels, list(map(len, regions.values())), color=LOOKS[0].colour)
        axes.bar_label(bars, padding=2)
        axes.tick_params(axis="y", labelsize="small")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("images: succeed on these, on no other")
    return figure


def _largest(regions: Regions) -> Regions:
    shown = sorted(regions, key=lambda names: len(regions[names]), reverse=True)[:MOST_BARS]
    return {names: found for names, found in regions.items() if names in shown}
