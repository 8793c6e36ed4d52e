"""How many cases a minute `synthesize` makes, and where the time goes: two stages, decoder, text and gate. Writing
runs beside drawing: what it costs is the time that is spent waiting for it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from measure import print_rows

from guidegen_diffusers import GuideGenPipeline, bundled_checkpoint
from guidegen_diffusers.checkpoints import available_checkpoints
from guidegen_diffusers.configs import available_configs
from guidegen_diffusers.synthesis import Gate, NiftiForm, NnunetForm, ParquetForm, Plan, synthesize


FORMS = {"nifti": NiftiForm, "nnunet": NnunetForm, "datasets": ParquetForm}
STAGES = {
    "_generate_mask": "label map (TCSS)",
    "_generate_latents": "latents (LFG)",
    "decode_latents": "decoder (CAE)",
}


def load(name: str) -> GuideGenPipeline:
    if name in available_checkpoints():
        return GuideGenPipeline.from_pretrained(bundled_checkpoint(name))
    if name in available_configs():
        return GuideGenPipeline.from_config(name)
    return GuideGenPipeline.from_pretrained(name)


def watch(pipe: GuideGenPipeline) -> dict[str, float]:
    """The seconds of each stage, which grow as the pipeline is called."""
    seconds = dict.fromkeys(STAGES.values(), 0.0)

    def timed(stage, call):
        def run(*arguments, **options):
            start = time.perf_counter()
            result = call(*arguments, **options)
            if pipe.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[stage] += time.perf_counter() - start
            return result

        return run

    for method, stage in STAGES.items():
        setattr(pipe, method, timed(stage, getattr(pipe, method)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Cases a minute of a synthesis, and where its time goes.")
    parser.add_argument("--model", default="tiny", help="bundled name, folder or untrained configuration")
    parser.add_argument("--count", type=int, default=16, help="cases (default: 16)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="batch sizes (default: 1 4)")
    parser.add_argument("--format", choices=FORMS, default="nifti")
    parser.add_argument("--steps", type=int, default=10, help="of the CT stage (default: 10)")
    parser.add_argument("--mask_steps", type=int, default=20, help="of the mask stage (default: 20)")
    parser.add_argument("--gate", action="store_true", help="judge the cases; noise would be drawn again and again")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    pipe = load(args.model).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    stages = watch(pipe)
    settings = {"num_inference_steps": args.steps, "mask_num_inference_steps": args.mask_steps}
    columns = []
    for size in args.batch:
        with tempfile.TemporaryDirectory() as folder:
            form, gate = FORMS[args.format](), Gate() if args.gate else None
            output, plan = Path(folder) / "Dataset101_Benchmark", Plan.from_prior(args.count)
            stages.update(dict.fromkeys(stages, 0.0))
            start = time.perf_counter()
            made = synthesize(pipe, plan, output, form, gate, batch_size=size, progress=False, **settings)
            total = time.perf_counter() - start
            parts = {**stages, **made.seconds}
            parts["rest of the call"] = parts.pop("drawing") - sum(stages.values())
            beside = parts.pop("writing")
            parts["rest"] = total - sum(parts.values())
            columns.append(
                {
                    "cases a minute": f"{60 * made.made / total:.4g}",
                    **{part: f"{100 * seconds / total:.1f} %" for part, seconds in parts.items()},
                    "writing, beside the others": f"{100 * beside / total:.1f} %",
                }
            )
    rows = [("", *(f"batch {size}" for size in args.batch))]
    rows += [(name, *(column[name] for column in columns)) for name in columns[0]]
    print_rows(f"{args.count} cases of {args.model} as {args.format}, {args.device}, {args.threads} threads", rows)


if __name__ == "__main__":
    main()
