"""What `import guidegen_diffusers` costs, in fresh interpreters: after the part of diffusers that any user of a
pipeline has paid for already (the bar), and after a bare `import diffusers`, which loads next to nothing until a
class is asked for (shown without a bar: every pipeline class of diffusers pays most of that).
"""

import argparse
import statistics
import subprocess
import sys

from measure import print_table, row


DIFFUSERS = "from diffusers import DiffusionPipeline, ModelMixin, DDIMScheduler"
BARE = "import diffusers"
SCRIPT = """
import time
start = time.perf_counter()
{before}
middle = time.perf_counter()
import guidegen_diffusers
print(middle - start, time.perf_counter() - middle)
"""


def import_times(before: str) -> tuple[float, float]:
    """Seconds of the import statement `before`, and of `import guidegen_diffusers` after it."""
    script = SCRIPT.format(before=before)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    first, second = done.stdout.split()[-2:]
    return float(first), float(second)


def main() -> None:
    parser = argparse.ArgumentParser(description="What `import guidegen_diffusers` adds to diffusers.")
    parser.add_argument("--repeats", type=int, default=5, help="fresh interpreters for each row (default: 5)")
    args = parser.parse_args()
    import_times(DIFFUSERS)  # fills the file cache
    times = [(import_times(DIFFUSERS), import_times(BARE)) for _ in range(args.repeats)]
    rows = []
    for what, runs, bar in zip((DIFFUSERS, BARE), zip(*times, strict=True), ("<= 1", ""), strict=True):
        diffusers_seconds, ours = (statistics.median(values) for values in zip(*runs, strict=True))
        rows.append(row(f"seconds added after `{what}`", ours, diffusers_seconds, "ms", ours, bar))
    print_table(f"import guidegen_diffusers; the ratio is the seconds it adds; medians of {args.repeats}", rows)


if __name__ == "__main__":
    main()
