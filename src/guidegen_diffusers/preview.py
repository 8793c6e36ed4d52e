"""The picture that stands for a case: `preview.png`, axial, coronal and sagittal slices of a CT and its label map.

Every plane is drawn in a lung window, in an abdomen window, and in the abdomen window with the classes in colour; all
panels share one scale in millimetres. Slices run through the tumour where there is one, else through levels that show
many organs. Radiological convention: the patient's right is on the picture's left, as if seen from the feet.
"""

from __future__ import annotations

import textwrap

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .labels import CLASSES, NUM_CLASSES, TUMOR


__all__ = ["draw_preview"]

WINDOWS = {"lung window": (-975, -225), "abdomen window": (-50, 150), "labels": (-50, 150)}  # HU at black and white
PLANES = ("Sagittal", "Coronal", "Axial")  # by the axis they cut
EDGES = (("A", "P"), ("R", "L"), ("R", "L"))  # the body's side at the left and right edge of each plane
COLORS = np.array([label.color for label in CLASSES], np.float32) / 255

# Pixels. A panel is never smaller than its letters and caption, however thin its slice.
WIDTH, LEAST_WIDTH, GRID_HEIGHT = 1440, 1100, 1040
LEAST_PANEL_WIDTH, LEAST_PANEL_HEIGHT = 172, 32
MARGIN, GAP, CAPTION_HEIGHT, LEGEND_WIDTH, LEGEND_LINE, TITLE_LINE = 24, 8, 24, 216, 21, 30
PAGE, BLACK, BRIGHT, SOFT, FAINT = (19, 21, 26), (0, 0, 0), (236, 238, 242), (164, 170, 180), (116, 122, 132)

Panel = tuple[int, int, str]  # the axis that the slice cuts, its index there, the window
Layout = list[list[list[Panel]]]  # rows of columns of panels, one below the other


def draw_preview(
    ct: np.ndarray | None, labels: np.ndarray, affine: np.ndarray, title: str = "", subtitle: str = ""
) -> Image.Image:
    """The preview of one case. `ct` holds HU, or is None where only labels exist; `affine` is in mm, RAS+.

    `title` (the prompt) stands on top and `subtitle` small below it; both wrap.
    """
    # With axes to the left, the back and the feet, every slice transposed is the picture: nothing else ever flips.
    orientation = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt("LPI")
    )
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = nib.affines.voxel_sizes(affine)
    labels = np.ascontiguousarray(nib.orientations.apply_orientation(labels, orientation))
    ct = None if ct is None else nib.orientations.apply_orientation(ct, orientation)

    levels = choose_levels(labels)
    layout, scale = choose_layout(levels, spacing * labels.shape, list(WINDOWS) if ct is not None else ["labels"])
    panels, legend, right, bottom = place(layout, spacing * labels.shape * scale)
    counts = count_by_slice(labels, 0).sum(axis=0)
    present = sorted(np.flatnonzero(counts[1:]) + 1, key=lambda i: i != TUMOR)
    bottom = max(bottom, legend[1] + len(present) * LEGEND_LINE)

    width = max(LEAST_WIDTH, right + 2 * MARGIN)
    lines = [(line, 22, BRIGHT, TITLE_LINE) for line in wrap(title, 22, width - 2 * MARGIN, 5)]
    lines += [(line, 14, SOFT, 20) for line in wrap(subtitle, 14, width - 2 * MARGIN, 2)]
    header = MARGIN + sum(line[-1] for line in lines)
    picture = Image.new("RGB", (width, header + bottom + MARGIN + 2 * LEGEND_LINE), PAGE)
    draw = ImageDraw.Draw(picture)
    top = MARGIN
    for line, size, color, height in lines:
        draw.text((MARGIN, top), line, color, ImageFont.load_default(size), "lt")
        top += height
    for panel, caption, (x, y, panel_width, panel_height) in panels:
        image = draw_panel(ct, labels, panel, levels[2], spacing * scale, (panel_width, panel_height))
        picture.paste(image, (MARGIN + x, header + y))
        draw.text((MARGIN + x, header + y - 7), caption, SOFT, ImageFont.load_default(14), "ls")
    draw_legend(draw, (MARGIN + legend[0], header + legend[1]), present, counts * spacing.prod() / 1000)
    draw_footer(draw, (MARGIN, header + bottom + LEGEND_LINE), scale, with_windows=ct is not None)
    return picture


def count_by_slice(labels: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of every class in every slice across an axis."""
    return np.array([np.bincount(plane.ravel(), minlength=NUM_CLASSES) for plane in np.moveaxis(labels, axis, 0)])


def choose_levels(labels: np.ndarray) -> list[list[int]]:
    """The slices to show, by axis: one sagittal, one coronal, two axial with the upper one first."""
    step = 1 + max(labels.shape) // 256  # every second or third voxel of a large scan tells as much
    areas = [count_by_slice(labels[::step, ::step, ::step], axis) for axis in range(3)]

    def richest(axis: int, names: list[str], otherwise: float) -> int:
        # Areas count relative to the class's largest one: a whole pancreas weighs as much as a whole liver.
        area = areas[axis][:, [label.id for label in CLASSES if label.name in names]]
        score = (area / np.maximum(area.max(axis=0), 1)).sum(axis=1)
        return step * int(score.argmax()) if score.any() else int(otherwise * labels.shape[axis])

    organs = [label.name for label in CLASSES[1:] if label.name != "ribs"]
    sagittal, coronal = richest(0, ["vertebrae", "aorta"], 1 / 2), richest(1, organs, 1 / 2)
    axial = [richest(2, ["heart", "lung"], 1 / 3), richest(2, ["liver", "kidney", "pancreas"], 2 / 3)]
    for box in ndimage.find_objects((labels == TUMOR).astype(np.uint8)):
        pieces, _ = ndimage.label(labels[box] == TUMOR)
        largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
        widest = [int(largest.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)]
        sagittal, coronal, through = (start.start + offset for start, offset in zip(box, widest, strict=True))
        axial[int(abs(axial[0] - through) > abs(axial[1] - through))] = through
    return [[sagittal], [coronal], sorted(axial)]


def choose_layout(levels: list[list[int]], size_mm: np.ndarray, views: list[str]) -> tuple[Layout, float]:
    """The arrangement that shows the panels largest, and its scale in pixels per millimetre."""
    sagittals, coronals, axials = ([[(axis, level, v) for level in levels[axis]] for v in views] for axis in range(3))
    # One row per window suits short scans. In a torso two axials are about as tall as a coronal: they are stacked.
    flat = [[axial[:1], axial[1:], c, s] for axial, c, s in zip(axials, coronals, sagittals, strict=True)]
    stacked = [[*coronals, *sagittals[:2]], [*axials, *sagittals[2:]]]
    if len(views) == 1:
        stacked = [[*axials, *coronals, *sagittals]]

    def largest_scale(layout: Layout) -> float:
        fits, too_large = 0.0, WIDTH / size_mm.max()
        for _ in range(14):
            scale = (fits + too_large) / 2
            _, _, right, bottom = place(layout, size_mm * scale)
            if right <= WIDTH - 2 * MARGIN and bottom <= GRID_HEIGHT:
                fits = scale
            else:
                too_large = scale
        return fits

    return max(((layout, largest_scale(layout)) for layout in (flat, stacked)), key=lambda choice: choice[1])


def place(
    layout: Layout, size: np.ndarray
) -> tuple[list[tuple[Panel, str, tuple[int, int, int, int]]], tuple[int, int], int, int]:
    """Panels with caption and box (x, y, width, height), the legend's corner, the right and the bottom of it all."""

    def extent(column: list[Panel]) -> tuple[int, int]:
        width, height = np.ceil(np.delete(size, column[0][0])).astype(int)
        return max(width, LEAST_PANEL_WIDTH), len(column) * (max(height, LEAST_PANEL_HEIGHT) + GAP) - GAP

    # The first row has all the columns; the legend stands right of the last row, up along the rows that end with it.
    lefts = np.cumsum([0] + [extent(column)[0] + GAP for column in layout[0]]).tolist()
    legend_left = lefts[len(layout[-1])] + GAP
    panels, tops, bottom = [], [], 0
    for row in layout:
        top, height = bottom + CAPTION_HEIGHT, max(extent(column)[1] for column in row)
        tops.append(top)
        for left, column in zip(lefts[: len(row)], row, strict=True):
            ends = np.linspace(0, height + GAP, len(column) + 1).astype(int).tolist()
            for panel, start, end in zip(column, ends[:-1], ends[1:], strict=True):
                caption = "" if start else f"{PLANES[panel[0]]}, {panel[2]}"
                panels.append((panel, caption, (left, top + start, extent(column)[0], end - start - GAP)))
        bottom = top + height + GAP
    legend_top = next(top for top, row in zip(tops, layout, strict=True) if len(row) == len(layout[-1]))
    return panels, (legend_left, legend_top), max(lefts[-1] - GAP, legend_left + LEGEND_WIDTH), bottom


def draw_panel(
    ct: np.ndarray | None,
    labels: np.ndarray,
    panel: Panel,
    axial_levels: list[int],
    pixels_per_voxel: np.ndarray,
    box: tuple[int, int],
) -> Image.Image:
    """One slice in the middle of a black box, with the letters of its edges and ticks at the levels of the axials."""
    axis, index, view = panel
    classes = np.moveaxis(labels, axis, 0)[index].T
    width, height = np.maximum(1, np.delete(pixels_per_voxel * labels.shape, axis).round().astype(int)).tolist()
    gray = np.zeros((height, width), np.float32)
    if ct is not None:
        black, white = WINDOWS[view]
        gray = (resize(np.moveaxis(ct, axis, 0)[index].T, (width, height)) - black) / (white - black)
    image = np.repeat(gray.clip(0, 1)[..., None], 3, axis=2)
    if view == "labels":
        image = paint_classes(image, classes, 0.45 if ct is not None else 0.9)
    if (classes == TUMOR).any():
        image = outline_tumor(image, classes == TUMOR)
    picture = Image.new("RGB", box, BLACK)
    left, top = (box[0] - width) // 2, (box[1] - height) // 2
    picture.paste(Image.fromarray((image * 255).round().astype(np.uint8)), (left, top))

    draw = ImageDraw.Draw(picture)
    for level in axial_levels if axis != 2 else []:
        y = top + int((level + 0.5) * pixels_per_voxel[2])
        for start in (left, left + width - 8):
            draw.line((start, y, start + 7, y), SOFT)
    for letter, x, anchor in zip(EDGES[axis], (7, box[0] - 7), ("lt", "rt"), strict=True):
        draw.text((x, 7), letter, BRIGHT, ImageFont.load_default(13), anchor, stroke_width=2, stroke_fill=BLACK)
    return picture


def resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def soft_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask as a field whose 0.5 contour is its outline without the voxels' staircase."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), 0.8, mode="nearest")
    # Every voxel's centre keeps its class, so thin ribs and lone voxels do not melt away.
    return resize(np.where(mask, np.maximum(smooth, 0.55), np.minimum(smooth, 0.45)), size)


def paint_classes(image: np.ndarray, classes: np.ndarray, opacity: float) -> np.ndarray:
    """Blend every class's colour over the picture, with smooth edges and a thin darker line between classes."""
    height, width = image.shape[:2]
    ids = np.unique(classes)
    if len(ids) == 1:
        return image + (ids[0] > 0) * opacity * (COLORS[ids[0]] - image)
    fields = np.stack([soft_mask(classes == i, (width, height)) for i in ids])
    first, lead = fields.argmax(axis=0), fields.max(axis=0)
    np.put_along_axis(fields, first[None], -1, axis=0)
    second, lead = fields.argmax(axis=0), lead - fields.max(axis=0)
    # The lead of the first class over the second grows by about one per voxel: as pixels, it is the way to the edge.
    distance = 1.2 * lead * max(1.0, np.sqrt(height * width / classes.size))
    share = (0.5 + distance).clip(0, 1)[..., None]
    opacities = opacity * (ids > 0).astype(np.float32)[:, None]
    tint = np.concatenate([COLORS[ids] * opacities, opacities], axis=1)
    tint = share * tint[first] + (1 - share) * tint[second]
    line = (1.3 - distance).clip(0, 1)[..., None]
    return (image * (1 - tint[..., 3:]) + tint[..., :3]) * (1 - 0.45 * line)


def outline_tumor(image: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Draw the tumour's outline: a line of even width in its colour, between two thin dark ones."""
    field = soft_mask(tumor, image.shape[1::-1])
    field = field / np.clip(field.max(), 1e-6, 1)  # a tumour smaller than a pixel keeps a contour
    slope = np.hypot(*(np.gradient(field, axis=a) if field.shape[a] > 1 else np.zeros_like(field) for a in (0, 1)))
    distance = (abs(field - 0.5) / np.maximum(slope, 1e-6))[..., None]
    halo, line = 0.45 * (2.8 - distance).clip(0, 1), (1.6 - distance).clip(0, 1)
    return image * (1 - halo) * (1 - line) + COLORS[TUMOR] * line


def draw_legend(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], present: list[int], milliliters: np.ndarray
) -> None:
    """Colours, names and volumes of the classes in the volume."""
    left, y = corner[0], corner[1] + LEGEND_LINE // 2
    for i in present:
        draw.rounded_rectangle((left, y - 6, left + 12, y + 6), 3, CLASSES[i].color)
        name = CLASSES[i].name.replace("_", " ").capitalize()
        draw.text((left + 22, y), name, BRIGHT if i == TUMOR else SOFT, ImageFont.load_default(14), "lm")
        volume = f"{milliliters[i]:,.{0 if milliliters[i] >= 10 else 1}f} ml"
        draw.text((left + LEGEND_WIDTH, y), volume, FAINT, ImageFont.load_default(13), "rm")
        y += LEGEND_LINE


def draw_footer(draw: ImageDraw.ImageDraw, start: tuple[int, int], scale: float, with_windows: bool) -> None:
    """A scale bar and what the windows are."""
    x, y = start
    length = max((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n * scale <= 120), default=1)
    end = x + round(length * scale)
    draw.line([(x, y - 4), (x, y), (end, y), (end, y - 4)], SOFT)
    note = f"{length} mm" if length < 10 else f"{length // 10} cm"
    for name in ("lung window", "abdomen window") if with_windows else ():
        note += f"     {name.capitalize()} {WINDOWS[name][0]} to {WINDOWS[name][1]} HU"
    draw.text((end + 12, y), note, FAINT, ImageFont.load_default(13), "lm")


def wrap(text: str, size: int, width: int, most: int) -> list[str]:
    """The text in lines that fit; what is beyond the last of them becomes an ellipsis."""
    font = ImageFont.load_default(size)
    for characters in range(240, 8, -4):
        lines = textwrap.wrap(text, characters, max_lines=most, placeholder=" …", break_on_hyphens=False)
        if all(font.getlength(line) <= width for line in lines):
            return lines
    return []
