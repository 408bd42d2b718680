"""Transferred attacks, counted and drawn: which examples succeed on which models, Table 4 and Figure 5 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advss.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL_LENGTH = 16  # characters of a label in a figure
MOST_BARS = 15  # regions that a bar plot shows, the largest
COLOURS = ("tab:blue", "tab:orange", "tab:green")

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


def draw_asr(outcome: Mapping[str, Any], path: Path) -> Path:
    """Write both ASR matrices as heat maps with their numbers in per cent; returns ``path``.

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
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    return image


def draw_overlap(outcome: Mapping[str, Any], path: Path) -> Path:
    """Write, for each source, on which models its examples succeed; returns ``path``.

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
        axes.set_title(f"attack made on {label}", fontsize="medium")
    return save_figure(figure, path)


def short_labels(labels: Sequence[str]) -> list[str]:
    """Labels of at most ``LABEL_LENGTH`` characters, their middle left out; numbered where that makes two the same."""
    head = (LABEL_LENGTH - 1) // 2
    tail = LABEL_LENGTH - 1 - head
    short = [label if len(label) <= LABEL_LENGTH else f"{label[:head]}…{label[-tail:]}" for label in labels]
    if len(set(short)) == len(set(labels)):
        return short
    return [f"{place} {label}" for place, label in enumerate(short, 1)]


def _venns(panels: Sequence[Mapping[str, set[int]]], labels: Sequence[str]) -> Figure:
    """A diagram of two sets for each of three sources, one colour a model."""
    from matplotlib.patches import Patch
    from matplotlib_venn import venn2

    colours = dict(zip(labels, COLOURS, strict=True))
    figure = new_figure(width=4 * len(panels), height=4.2)
    for axes, sets in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.set_axis_off()
        if any(sets.values()):
            venn2(tuple(sets.values()), set_labels=None, set_colors=tuple(colours[name] for name in sets), ax=axes)
        else:
            axes.text(0.5, 0.5, "none succeeds", ha="center")
    handles = [Patch(color=colour, alpha=0.4, label=f"succeeds on {name}") for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _bars(panels: Sequence[Regions]) -> Figure:
    """Exclusive regions, the largest of them, one panel a source."""
    kept = [_largest(regions) for regions in panels]
    lines = max([sum(map(len, regions)) for regions in kept], default=1)
    figure = new_figure(width=4.5 * len(panels), height=1.5 + 0.25 * max(lines, 4))
    for axes, regions in zip(figure.subplots(1, len(panels)), kept, strict=True):
        bars = axes.barh(["\n+ ".join(names) for names in regions], list(map(len, regions.values())))
        axes.bar_label(bars, padding=2)
        axes.tick_params(axis="y", labelsize="small")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("images: succeed on these, on no other")
    return figure


def _largest(regions: Regions) -> Regions:
    shown = sorted(regions, key=lambda names: len(regions[names]), reverse=True)[:MOST_BARS]
    return {names: found for names, found in regions.items() if names in shown}
