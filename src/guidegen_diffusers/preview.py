"""The picture that stands for a case: `preview.png`, axial, coronal and sagittal slices of a CT and its label map.

Every plane is drawn in a lung window, in an abdomen window, and in the abdomen window with the classes in colour; all
panels share one scale in millimetres. Slices run through the tumour where there is one, else through levels that show
many organs. Radiological convention: the patient's right is on the picture's left, as if seen from the feet.
"""

from __future__ import annotations

from collections.abc import Collection

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .labels import CLASSES, NUM_CLASSES, TUMOR


__all__ = ["draw_preview"]

WINDOWS = {"lung window": (-975, -225), "abdomen window": (-50, 150), "labels": (-50, 150)}  # HU at black and white
PLANES = ("Sagittal", "Coronal", "Axial")  # by the axis they cut
EDGES = (("A", "P"), ("R", "L"), ("R", "L"))  # what a plane's left and right edge are

WIDTH, LEAST_WIDTH, GRID_HEIGHT = 1440, 1100, 1040  # pixels, the last for all panels together
MARGIN, GAP, CAPTION_HEIGHT, LEGEND_WIDTH, LEGEND_LINE, TITLE_LINE = 24, 8, 24, 224, 22, 30
LEAST_PANEL = (160, 32)  # room for the letters and the caption of a panel, however thin its slice
TITLE_LINES = 5
PAGE, BRIGHT, SOFT, FAINT = (19, 21, 26), (236, 238, 242), (160, 166, 176), (110, 116, 126)
COLORS = np.array([label.color for label in CLASSES], np.float32) / 255

Panel = tuple[int, int, str]  # the axis that the slice cuts, its index there, the window
Layout = list[list[list[Panel]]]  # rows of columns of stacked panels
Box = tuple[int, int, int, int]  # left, top, right, bottom


def draw_preview(
    ct: np.ndarray | None, labels: np.ndarray, affine: np.ndarray, title: str = "", subtitle: str = ""
) -> Image.Image:
    """The preview of one case. `ct` holds HU or is None, which leaves the label map alone; `affine` is in mm, RAS+."""
    # With axes to the left, the back and the feet, every slice transposed is the picture: nothing else ever flips.
    orientation = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt("LPI")
    )
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = nib.affines.voxel_sizes(affine)
    labels = nib.orientations.apply_orientation(labels, orientation)
    ct = None if ct is None else nib.orientations.apply_orientation(ct, orientation)
    size_mm = spacing * labels.shape

    areas = [count_by_slice(labels, axis) for axis in range(3)]
    levels = choose_levels(labels, areas)
    layout, scale = choose_layout(levels, size_mm, list(WINDOWS) if ct is not None else ["labels"])
    panels, (legend_left, legend_top), (right, bottom) = place(layout, size_mm, scale)

    counts = areas[0].sum(axis=0)
    present = sorted(np.flatnonzero(counts[1:]) + 1, key=lambda i: i != TUMOR)
    legend_bottom = legend_top + (len(present) + 5) * LEGEND_LINE
    width = max(LEAST_WIDTH, right + 2 * MARGIN)
    lines = wrap(title, font(22), width - 2 * MARGIN)
    header = MARGIN + len(lines) * TITLE_LINE + (26 if subtitle else 0)
    picture = Image.new("RGB", (width, header + max(bottom, legend_bottom) + MARGIN), PAGE)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + i * TITLE_LINE), line, BRIGHT, font(22), anchor="lt")
    for line in wrap(subtitle, font(14), width - 2 * MARGIN)[:1]:
        draw.text((MARGIN, MARGIN + len(lines) * TITLE_LINE + 2), line, SOFT, font(14), anchor="lt")

    for panel, captioned, box in panels:
        draw_panel(picture, ct, labels, panel, levels, size_mm, scale, np.add(box, (MARGIN, header) * 2), captioned)
    milliliters = counts * spacing.prod() / 1000
    draw_legend(draw, (MARGIN + legend_left, header + legend_top), present, milliliters, scale, ct is not None)
    return picture


def count_by_slice(labels: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of every class in every slice across an axis."""
    return np.array([np.bincount(plane.ravel(), minlength=NUM_CLASSES) for plane in np.moveaxis(labels, axis, 0)])


def choose_levels(labels: np.ndarray, areas: list[np.ndarray]) -> list[list[int]]:
    """The slices to show, by axis: one sagittal, one coronal, two axial with the upper one first."""

    def richest(axis: int, names: Collection[str], otherwise: float) -> int:
        """The slice where these classes are largest together, each relative to its own largest area."""
        area = areas[axis][:, [label.id for label in CLASSES if label.name in names]]
        score = (area / np.maximum(area.max(axis=0), 1)).sum(axis=1)
        return int(np.argmax(score)) if score.any() else int(otherwise * len(score))

    organs = [label.name for label in CLASSES[1:] if label.name != "ribs"]
    sagittal, coronal = richest(0, ["vertebrae", "aorta"], 1 / 2), richest(1, organs, 1 / 2)
    axial = [richest(2, ["heart", "lung"], 1 / 3), richest(2, ["liver", "kidney", "pancreas"], 2 / 3)]
    for box in ndimage.find_objects((labels == TUMOR).astype(np.uint8)):
        pieces, _ = ndimage.label(labels[box] == TUMOR)
        largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        widest = [int(np.argmax(largest.sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3)]
        sagittal, coronal, through = (widest[axis] + box[axis].start for axis in range(3))
        axial[int(abs(axial[0] - through) > abs(axial[1] - through))] = through
    return [[sagittal], [coronal], sorted(axial)]


def choose_layout(levels: list[list[int]], size_mm: np.ndarray, views: list[str]) -> tuple[Layout, float]:
    """The arrangement that shows the panels largest, and its scale in pixels per millimetre."""
    sagittals, coronals, axials = ([[(axis, level, v) for level in levels[axis]] for v in views] for axis in range(3))
    # One row per window suits short scans. In a torso two axials are about as tall as a coronal: they are stacked.
    flat = [[[axial[0]], [axial[1]], c, s] for axial, c, s in zip(axials, coronals, sagittals, strict=True)]
    stacked = [[*coronals, *sagittals[:2]], [*axials, *sagittals[2:]]]
    if len(views) == 1:
        stacked = [[*axials, *coronals, *sagittals]]

    def largest_scale(layout: Layout) -> float:
        scale = WIDTH / size_mm.max()
        while True:
            _, _, (right, bottom) = place(layout, size_mm, scale)
            if right <= WIDTH - 2 * MARGIN and bottom <= GRID_HEIGHT:
                return scale
            scale *= 0.99

    return max(((layout, largest_scale(layout)) for layout in (flat, stacked)), key=lambda choice: choice[1])


def place(
    layout: Layout, size_mm: np.ndarray, scale: float
) -> tuple[list[tuple[Panel, bool, Box]], tuple[int, int], tuple[int, int]]:
    """Every panel with whether it is captioned and its box, the legend's corner, and the extent of it all."""

    def size(panel: Panel) -> tuple[int, int]:
        return tuple(np.maximum(LEAST_PANEL, np.ceil(np.delete(size_mm, panel[0]) * scale)).astype(int))

    widths = [0] * max(len(row) for row in layout)
    for row in layout:
        widths[: len(row)] = [max(w, size(column[0])[0]) for w, column in zip(widths, row)]
    lefts = np.cumsum([0] + [width + GAP for width in widths])
    # The legend stands right of the last row, and rises along the rows before it that are no wider.
    legend_left = int(lefts[len(layout[-1])]) + GAP
    panels, legend_top, bottom = [], None, 0
    for row in layout:
        top = bottom + CAPTION_HEIGHT
        if len(row) == len(layout[-1]) and legend_top is None:
            legend_top = top
        height = max(len(column) * (size(column[0])[1] + GAP) - GAP for column in row)
        for left, width, column in zip(lefts, widths, row):
            step = (height + GAP) / len(column)
            for i, panel in enumerate(column):
                box = (int(left), top + round(i * step), int(left) + width, top + round((i + 1) * step) - GAP)
                panels.append((panel, i == 0, box))
        bottom = top + height + GAP
    return panels, (legend_left, legend_top), (max(int(lefts[-1]) - GAP, legend_left + LEGEND_WIDTH), bottom)


def draw_panel(
    picture: Image.Image,
    ct: np.ndarray | None,
    labels: np.ndarray,
    panel: Panel,
    levels: list[list[int]],
    size_mm: np.ndarray,
    scale: float,
    box: Box,
    captioned: bool,
) -> None:
    """One slice in the middle of its black box, with its edges lettered and the axial levels ticked."""
    axis, index, view = panel
    left, top, right, bottom = (int(edge) for edge in box)
    width, height = (max(1, round(mm * scale)) for mm in np.delete(size_mm, axis))
    x, y = left + (right - left - width) // 2, top + (bottom - top - height) // 2
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, right - 1, bottom - 1), (0, 0, 0))
    hu = None if ct is None else ct.take(index, axis).T
    picture.paste(render(hu, labels.take(index, axis).T, view, (width, height)), (x, y))
    if axis != 2:
        for level in levels[2]:
            at = y + round((level + 0.5) / labels.shape[2] * height)
            draw.line((x, at, x + 7, at), SOFT)
            draw.line((x + width - 8, at, x + width - 1, at), SOFT)
    for letter, corner, anchor in zip(EDGES[axis], (left + 7, right - 8), ("lt", "rt"), strict=True):
        draw.text((corner, top + 7), letter, SOFT, font(13), anchor, stroke_width=1, stroke_fill=(0, 0, 0))
    if captioned:
        draw.text((left, top - 7), f"{PLANES[axis]}, {view}", SOFT, font(14), anchor="ls")


def render(hu: np.ndarray | None, classes: np.ndarray, view: str, size: tuple[int, int]) -> Image.Image:
    """A slice at its size in the picture: grey values, the classes over them in the labels view, the tumour's outline."""
    if hu is None:
        gray = np.zeros(size[::-1], np.float32)
    else:
        black, white = WINDOWS[view]
        gray = (resize(hu, size) - black) / (white - black)
    image = np.repeat(gray.clip(0, 1)[..., None], 3, axis=2)
    if view == "labels" and classes.any():
        image = paint_classes(image, classes, 0.45 if hu is not None else 0.9)
    if (classes == TUMOR).any():
        image = outline_tumor(image, classes == TUMOR)
    return Image.fromarray((image * 255).round().astype(np.uint8))


def resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def soft_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask as a smooth field whose 0.5 contour is its outline without the voxels' staircase."""
    return resize(ndimage.gaussian_filter(mask.astype(np.float32), 0.5, mode="nearest"), size)


def paint_classes(image: np.ndarray, classes: np.ndarray, opacity: float) -> np.ndarray:
    """Blend every class's colour over the picture, with smooth edges and a thin darker line between classes."""
    height, width = image.shape[:2]
    ids = np.unique(classes)
    fields = np.stack([soft_mask(classes == i, (width, height)) for i in ids])
    if len(ids) == 1:
        fields = np.concatenate([fields, np.zeros_like(fields)])
        ids = np.append(ids, 0)
    first = fields.argmax(axis=0)
    strongest = fields.max(axis=0)
    np.put_along_axis(fields, first[None], -1, axis=0)
    second = fields.argmax(axis=0)
    # A field crosses an edge within about one voxel, which turns the lead of the first class into pixels from the edge.
    distance = (strongest - fields.max(axis=0)) / 2 * max(1.0, width / classes.shape[1])
    share = (0.5 + distance).clip(0, 1)[..., None]
    colors, opacities = COLORS[ids], opacity * (ids > 0)[:, None]
    cover = share * opacities[first] + (1 - share) * opacities[second]
    color = share * (colors * opacities)[first] + (1 - share) * (colors * opacities)[second]
    line = (1.3 - distance).clip(0, 1)[..., None]
    return (image * (1 - cover) + color) * (1 - 0.45 * line)


def outline_tumor(image: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Draw the tumour's outline, a line of even width in its colour between two thin dark ones."""
    height, width = image.shape[:2]
    field = soft_mask(tumor, (width, height))
    field = field / max(field.max(), 1e-6)  # so that a tumour of a few voxels keeps a contour
    slope = np.hypot(*(np.gradient(field, axis=axis) if field.shape[axis] > 1 else 0 * field for axis in (0, 1)))
    distance = abs(field - 0.5) / np.maximum(slope, 1e-6)
    halo, line = (0.45 * (2.8 - distance).clip(0, 1)[..., None]), (1.6 - distance).clip(0, 1)[..., None]
    return image * (1 - halo) * (1 - line) + COLORS[TUMOR] * line


def draw_legend(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    present: list[int],
    milliliters: np.ndarray,
    scale: float,
    with_ct: bool,
) -> None:
    """Colours, names and volumes of the classes in the volume, the windows, and a scale bar."""
    left, top = corner
    for i in present:
        middle = top + LEGEND_LINE // 2
        draw.rounded_rectangle((left, middle - 6, left + 12, middle + 6), 3, CLASSES[i].color)
        name, volume = (
            CLASSES[i].name.replace("_", " ").capitalize(),
            f"{milliliters[i]:,.{int(milliliters[i] < 10)}f} ml",
        )
        draw.text((left + 22, middle), name, BRIGHT if i == TUMOR else SOFT, font(14), anchor="lm")
        draw.text((left + LEGEND_WIDTH, middle), volume, FAINT, font(13), anchor="rm")
        top += LEGEND_LINE
    top += LEGEND_LINE // 2
    for view in list(WINDOWS)[:2] if with_ct else []:
        black, white = WINDOWS[view]
        draw.text(
            (left, top + LEGEND_LINE // 2), f"{view.capitalize()}: {black} to {white} HU", FAINT, font(13), anchor="lm"
        )
        top += LEGEND_LINE
    # The roundest length of at most half the legend.
    length = max([n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n * scale <= LEGEND_WIDTH / 2], default=1)
    end, middle = left + round(length * scale), top + LEGEND_LINE
    draw.line((left, middle, end, middle), SOFT)
    draw.line((left, middle - 4, left, middle + 4), SOFT)
    draw.line((end, middle - 4, end, middle + 4), SOFT)
    draw.text((end + 10, middle), f"{length} mm" if length < 10 else f"{length // 10} cm", SOFT, font(13), anchor="lm")


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most this width; what does not fit into the lines allowed ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        # A word longer than a line, a path say, is broken where the line ends.
        while face.getlength(word) > width:
            cut = max(1, next(n for n in range(len(word), 0, -1) if face.getlength(word[:n]) <= width))
            lines.append(word[:cut])
            word = word[cut:]
        if face.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(word)
    return [line for line in lines if line]
