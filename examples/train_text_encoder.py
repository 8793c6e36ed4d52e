"""Train the small text encoder that the bundled pipelines carry: a BERT of a few layers that reads clinical sentences.

Two losses on sentences that `ClinicalPrompt` renders: masked language modelling, and agreement with the attributes,
which linear heads read off the mean of the states (the pooling of the U-Nets). The second is the point: a network can
only follow what can be read. The tokenizer is made from the same sentences. Every sentence is a pure function of
(seed, step, place in the batch), so that a run that was stopped goes on as if it had not been.

    accelerate launch examples/train_text_encoder.py --config torso-6mm --output_dir out/text-encoder
"""

import argparse
import json
import os
import shutil
import string
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import nn
from tqdm.auto import tqdm
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast

from guidegen_diffusers import ClinicalPrompt, load_config
from guidegen_diffusers.prompts import AGES, NUM_STYLES, RACES, SEXES, SITES, SIZES
from guidegen_diffusers.text_encoder import SPECIAL


logger = get_logger(__name__)
STAGE = "text encoder"

HEADS = {"sex": SEXES, "age": AGES, "race": RACES, "t": (0, 1, 2, 3, 4), "n": (0, 1, 2, 3), "m": (0, 1), "size": SIZES}
DROPPED = ("sex", "age", "race", "t", "n", "m", "size")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the small text encoder on rendered clinical sentences.")
    parser.add_argument("--config", default="torso-6mm", help="names the encoder's size: one of the package, or JSON")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets tokenizer/, text_encoder/, checkpoints")
    parser.add_argument("--vocab_size", type=int, default=1024)
    parser.add_argument("--train_batch_size", type=int, default=64, help="sentences a process and step")
    parser.add_argument("--max_train_steps", type=int, default=3000)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--lr_scheduler", default="linear")
    parser.add_argument("--lr_warmup_steps", type=int, default=100)
    parser.add_argument("--adam_weight_decay", type=float, default=1e-2)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--canonical_share", type=float, default=0.4, help="share of canonical sentences")
    parser.add_argument("--mlm_weight", type=float, default=0.3)
    parser.add_argument("--mixed_precision", default="no", choices=("no", "bf16", "fp16"))
    parser.add_argument("--checkpointing_steps", type=int, default=1000)
    parser.add_argument("--checkpoints_total_limit", type=int, default=1, help="0 keeps all")
    parser.add_argument("--resume_from_checkpoint", help="a checkpoint's folder, or latest")
    parser.add_argument("--validation_steps", type=int, default=500)
    parser.add_argument("--report_to", help="tensorboard, wandb, ...; none unless given")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------------- sentences


def draw_prompt(generator: torch.Generator) -> ClinicalPrompt:
    """A prompt of the prior, some of its attributes left open again."""
    prompt = ClinicalPrompt().resolve(generator)
    keep = torch.rand(len(DROPPED), generator=generator) > 0.15
    values = {name: getattr(prompt, name) if kept else None for name, kept in zip(DROPPED, keep.tolist(), strict=True)}
    return ClinicalPrompt(sites=prompt.sites, **values)


def draw_sentence(prompt: ClinicalPrompt, canonical_share: float, generator: torch.Generator) -> str:
    if torch.rand((), generator=generator) < canonical_share:
        return prompt.render()
    return prompt.render(int(torch.randint(NUM_STYLES, (), generator=generator)))


def draw_batch(args, step: int, process: int, size: int) -> tuple[list[ClinicalPrompt], list[str], torch.Generator]:
    """What is drawn in a step: of nothing but its number, so that resuming needs no state."""
    seed = int(np.random.SeedSequence([args.seed, step, process]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(seed)
    prompts = [draw_prompt(generator) for _ in range(size)]
    return prompts, [draw_sentence(p, args.canonical_share, generator) for p in prompts], generator


def make_tokenizer(folder: Path, vocab_size: int, max_length: int, seed: int) -> None:
    """The words of the sentences of all styles, the frequent ones first, and single characters for everything else.

    Counted, not trained: the trainers of `tokenizers` break ties at random, and a seed would not name an encoder.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = [draw_prompt(generator) for _ in range(400)]
    sentences = [p.render(style) for p in prompts for style in range(NUM_STYLES)]
    text = BertNormalizer(lowercase=True).normalize_str(" ".join(sentences))
    counts = Counter(word for word, _ in BertPreTokenizer().pre_tokenize_str(text))
    words = sorted(counts, key=lambda word: (-counts[word], word))
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = dict.fromkeys([*SPECIAL, *characters, *(f"##{c}" for c in characters), *words])  # "a" is a word, too
    vocabulary = {piece: i for i, piece in enumerate(list(pieces)[:vocab_size])}
    tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=max_length)
    partial = folder.with_name(f".{folder.name}.partial")
    tokenizer.save_pretrained(partial)
    os.replace(partial, folder)


# ----------------------------------------------------------------------------------------------------------- model


class Reader(nn.Module):
    """The encoder with what trains it: the head of masked language modelling, and one linear head an attribute."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = BertForMaskedLM(config)
        self.heads = nn.ModuleDict({name: nn.Linear(config.hidden_size, len(v) + 1) for name, v in HEADS.items()})
        self.sites = nn.Linear(config.hidden_size, len(SITES))

    def forward(self, ids, attention, labels):
        out = self.bert.bert(input_ids=ids, attention_mask=attention).last_hidden_state  # (B, M, C)
        words = F.cross_entropy(self.bert.cls(out).transpose(1, 2), labels, ignore_index=-100)
        weight = attention[..., None].to(out.dtype)
        mean = (out * weight).sum(1) / weight.sum(1)
        return words, {name: head(mean) for name, head in self.heads.items()}, self.sites(mean)


def targets(prompts: list[ClinicalPrompt]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Class 0 of each attribute is "not said"; sites are the set that is allowed."""
    attributes = {
        name: torch.tensor([0 if getattr(p, name) is None else 1 + values.index(getattr(p, name)) for p in prompts])
        for name, values in HEADS.items()
    }
    return attributes, torch.tensor([[float(site in p.sites) for site in SITES] for p in prompts])


def masked(ids, attention, tokenizer, generator):
    """15 % of the words are asked for; four in five of them hidden, the others left to be confirmed."""
    draw = torch.rand(ids.shape, generator=generator)
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (draw < 0.15) & attention.bool() & ~special
    return torch.where(chosen & (draw < 0.12), tokenizer.mask_token_id, ids), ids.masked_fill(~chosen, -100)


@torch.no_grad()
def validate(model, tokenizer, args, device) -> dict[str, float]:
    """The share of attributes that the heads read right, off sentences of held-out steps."""
    model.eval()
    right = {name: [] for name in (*HEADS, "sites")}
    for step in range(8):
        prompts, sentences, _ = draw_batch(args, 10**12 + step, 0, 64)
        text = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(device)
        _, heads, sites = model(text["input_ids"], text["attention_mask"], text["input_ids"])
        attributes, allowed = targets(prompts)
        for name in HEADS:
            right[name].append((heads[name].argmax(1).cpu() == attributes[name]).float())
        right["sites"].append(((sites.cpu() > 0) == (allowed > 0.5)).all(1).float())
    model.train()
    return {name: torch.cat(values).mean().item() for name, values in right.items()}


# ------------------------------------------------------------------------------------------------------ checkpoints


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, the oldest first; one that was being written has another name."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def save_checkpoint(accelerator: Accelerator, args: argparse.Namespace, record: dict) -> None:
    target = args.output_dir / f"checkpoint-{record['step']}"
    partial = target.with_name(f".{target.name}.partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "stage.json").write_text(json.dumps(record))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        others = [path for path in checkpoints(args.output_dir) if path != target]
        limit = args.checkpoints_total_limit or len(others) + 1  # 0 keeps them all
        for old in others[: max(0, len(others) + 1 - limit)]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def find_checkpoint(args: argparse.Namespace) -> tuple[Path | None, dict]:
    """The checkpoint to go on from, if there is one, and its record."""
    path = Path(args.resume_from_checkpoint) if args.resume_from_checkpoint else None
    if args.resume_from_checkpoint == "latest":
        path = next(reversed(checkpoints(args.output_dir)), None)
    if path is None and (there := checkpoints(args.output_dir)):  # a new run's would be pruned as the oldest
        raise SystemExit(
            f"--output_dir: {args.output_dir} holds {there[-1].name} of an earlier run; go on from it with "
            "--resume_from_checkpoint latest, or choose another folder."
        )
    if path is None:
        return None, {"stage": STAGE, "config": args.config, "step": 0, "seconds": 0.0}
    if not (path / "stage.json").is_file():
        raise SystemExit(f"--resume_from_checkpoint: {path} holds no stage.json, expected a checkpoint of {STAGE}.")
    record = json.loads((path / "stage.json").read_text())
    if (record["stage"], record["config"]) != (STAGE, args.config):
        raise SystemExit(
            f"--resume_from_checkpoint: {path} is of {record['stage']} with {record['config']}, expected {STAGE} with "
            f"{args.config}."
        )
    return path, record


def save_encoder(trained: BertModel, args: argparse.Namespace, record: dict) -> None:
    """The encoder as `AutoModel` reads it, which expects a pooler; nobody here uses one, and it holds zeros."""
    encoder = BertModel(trained.config)
    encoder.load_state_dict(trained.state_dict(), strict=False)
    for parameter in encoder.pooler.parameters():
        parameter.data.zero_()
    partial, target = args.output_dir / ".text_encoder.partial", args.output_dir / "text_encoder"
    encoder.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    file = args.output_dir / "training_text_encoder.json"
    file.write_text(json.dumps(record | {"arguments": arguments}, indent=2))


# ---------------------------------------------------------------------------------------------------------- training


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        log_with=args.report_to,
        project_config=ProjectConfiguration(project_dir=str(args.output_dir)),
    )
    set_seed(args.seed)
    try:
        config = load_config(args.config)["text_encoder"]
    except ValueError as error:
        raise SystemExit(f"--config: {error}") from error
    if config is None:
        raise SystemExit(f"--config: {args.config} names no encoder to train, it takes one of the Hub as it is.")
    folder = args.output_dir / "tokenizer"
    if accelerator.is_main_process and not folder.exists():
        args.output_dir.mkdir(parents=True, exist_ok=True)
        make_tokenizer(folder, args.vocab_size, config["max_position_embeddings"], args.seed)
    accelerator.wait_for_everyone()
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = Reader(BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.adam_weight_decay)
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    path, record = find_checkpoint(args)
    if path is not None:
        accelerator.load_state(str(path))
        inner = schedule.scheduler  # the checkpoint brought its learning rate; the argument's counts
        inner.base_lrs = [args.learning_rate]
        optimizer.param_groups[0]["lr"] = args.learning_rate * inner.lr_lambdas[0](inner.last_epoch)
        logger.info(f"resumed from {path}")
    step, before, started = record["step"], record["seconds"], time.monotonic()
    if args.report_to:
        accelerator.init_trackers(STAGE, {key: str(value) for key, value in vars(args).items()})

    bar = tqdm(total=args.max_train_steps, initial=step, desc=STAGE, disable=not accelerator.is_main_process)
    model.train()
    while step < args.max_train_steps:
        prompts, sentences, generator = draw_batch(args, step, accelerator.process_index, args.train_batch_size)
        text = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        ids, labels = masked(text["input_ids"], text["attention_mask"], tokenizer, generator)
        attributes, allowed = targets(prompts)
        device = accelerator.device
        words, heads, sites = model(ids.to(device), text["attention_mask"].to(device), labels.to(device))
        reading = sum(F.cross_entropy(heads[name].float(), attributes[name].to(device)) for name in HEADS)
        reading = reading + len(SITES) * F.binary_cross_entropy_with_logits(sites.float(), allowed.to(device))
        loss = args.mlm_weight * words.float() + reading
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{STAGE}: the loss is {loss.item()} at step {step}; resume from the last checkpoint with a lower "
                "learning rate."
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        record |= {"step": step, "seconds": before + time.monotonic() - started}
        bar.update()
        bar.set_postfix(words=f"{words.item():.3f}", reading=f"{reading.item():.3f}")
        if args.report_to:
            accelerator.log({"words": words.item(), "reading": reading.item()}, step=step)
        finished = step == args.max_train_steps
        if step % args.checkpointing_steps == 0 or finished:
            save_checkpoint(accelerator, args, record)
        if step % args.validation_steps == 0 and not finished:
            look(accelerator, model, tokenizer, args, record)
    look(accelerator, model, tokenizer, args, record)  # also where a run was killed between its last step and this
    accelerator.end_training()


def look(accelerator: Accelerator, model: nn.Module, tokenizer, args: argparse.Namespace, record: dict) -> None:
    """Score the encoder as it is now, and leave it."""
    if accelerator.is_main_process:
        reader = accelerator.unwrap_model(model)
        scores = validate(reader, tokenizer, args, accelerator.device)
        tqdm.write(f"step {record['step']}: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
        save_encoder(reader.bert.bert, args, record | {"scores": scores})
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
