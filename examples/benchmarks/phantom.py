"""How many cases a second the procedural torso makes on one core, labels and CT together, against the bars of the
project: 10 at 6 mm, 1.5 at 3 mm. And what `find_site` adds, as a share of the time that makes the case.
"""

import argparse
import statistics
import time

import torch
from measure import print_table, row

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.tumor_sites import find_site


GRIDS = (((64, 48, 96), 6.0, 10.0), ((128, 96, 192), 3.0, 1.5))


def main() -> None:
    parser = argparse.ArgumentParser(description="Cases a second of the procedural torso, on one core.")
    parser.add_argument("--count", type=int, default=40, help="cases at 6 mm; a quarter of it at 3 mm (default: 40)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for size, spacing, bar in GRIDS:
        phantom = TorsoPhantom(size, spacing)
        phantom.sample(None, 0)
        made, found = [], []
        for seed in range(1, 1 + max(3, args.count // (1 if spacing > 3 else 4))):
            start = time.process_time()  # of this process alone: other work on the machine does not count
            case = phantom.sample(None, seed)
            made.append(time.process_time() - start)
            start = time.process_time()
            find_site(case.labels, case.affine)
            found.append(time.process_time() - start)
        seconds, scoring = statistics.mean(made), statistics.mean(found)
        print_table(
            f"Torso phantom, {size[0]} x {size[1]} x {size[2]} at {spacing:g} mm, one core, {len(made)} cases",
            [
                row("a case; the ratio is cases a second", seconds, 1 / bar, "ms", 1 / seconds, f">= {bar:g}"),
                row("find_site; the ratio is its share", scoring, seconds, "ms", scoring / seconds),
            ],
        )


if __name__ == "__main__":
    main()
