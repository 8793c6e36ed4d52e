"""What cannot be right in a call of [`GuideGenPipeline`]: each is named with what came and what was expected."""

from __future__ import annotations

import math
import numbers

import torch


__all__ = ["CT_STAGE", "MASK_STAGE", "check_guidegen_inputs"]

MASK_STAGE = ("mask_unet", "mask_scheduler")
CT_STAGE = ("vae", "semantic_encoder", "unet", "scheduler")


def check_guidegen_inputs(
    pipe,
    *,
    prompt,
    mask,
    output,
    output_type,
    num_inference_steps,
    mask_num_inference_steps,
    mask_timesteps,
    guidance_scale,
    mask_guidance_scale,
    negative_prompt,
    num_volumes_per_prompt,
    generator,
    batch_size,
    prompt_embeds,
    prompt_attention_mask,
    negative_prompt_embeds,
    negative_prompt_attention_mask,
    latents,
    mask_latents,
    callback_on_step_end_tensor_inputs,
    mask_callback_on_step_end_tensor_inputs,
) -> None:
    """Arguments as in `GuideGenPipeline.__call__`, and the `batch_size` they come to."""
    if output not in ("pair", "mask"):
        raise ValueError(f"output: got {output!r}, expected 'pair' (label map and CT) or 'mask' (label map only).")
    if output_type not in ("np", "pt", "latent"):
        raise ValueError(f"output_type: got {output_type!r}, expected 'np', 'pt' or 'latent'.")
    if mask is not None and output == "mask":
        raise ValueError("output: got 'mask' together with a mask of your own, which leaves nothing to generate.")
    if mask is not None and (mask_latents is not None or mask_timesteps is not None):
        raise ValueError("mask_latents, mask_timesteps: got them with a mask of your own, which skips their stage.")
    needed = [] if mask is not None else list(MASK_STAGE)
    needed += [] if output == "mask" else list(CT_STAGE)
    needed += [] if prompt_embeds is not None else ["tokenizer", "text_encoder"]
    lacking = [name for name in needed if getattr(pipe, name) is None]
    if lacking:
        raise ValueError(f"This call needs {', '.join(lacking)}, which the pipeline was made without.")
    if output == "pair" and pipe.latent_spread is not None and pipe.scheduler.config.prediction_type == "epsilon":
        raise ValueError(
            "latent_spread: got it with a scheduler of prediction_type 'epsilon', expected 'v_prediction' or "
            "'sample': of noise alone epsilon says no x_0 whose means could be drawn; or leave latent_spread out."
        )
    if not isinstance(num_volumes_per_prompt, int) or num_volumes_per_prompt < 1:
        raise ValueError(f"num_volumes_per_prompt: got {num_volumes_per_prompt!r}, expected 1 or more.")
    for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        strings = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        if value is not None and not isinstance(value, str) and not strings:
            raise TypeError(f"{name}: got {value!r}, expected a string or a list of strings.")
    count = batch_size // num_volumes_per_prompt
    if isinstance(negative_prompt, list) and len(negative_prompt) != count:
        raise ValueError(f"negative_prompt: got {len(negative_prompt)} strings, expected {count}, one a prompt.")
    if prompt is not None and prompt_embeds is not None:
        raise ValueError("prompt_embeds: got them together with a prompt, expected one of the two.")
    if negative_prompt is not None and negative_prompt_embeds is not None:
        raise ValueError("negative_prompt_embeds: got them together with a negative prompt, expected one of the two.")
    if prompt is None and prompt_embeds is None and mask is None:
        raise ValueError("prompt: got none, expected a sentence (or `prompt_embeds`, or a `mask` to paint).")
    for name, value, scheduler in (
        ("num_inference_steps", num_inference_steps, pipe.scheduler),
        ("mask_num_inference_steps", mask_num_inference_steps, pipe.mask_scheduler),
    ):
        most = 1000 if scheduler is None else scheduler.config.num_train_timesteps
        if not isinstance(value, numbers.Integral) or not 1 <= value <= most:
            raise ValueError(f"{name}: got {value!r}, expected a whole number in 1..{most}.")
    for name, value in (("guidance_scale", guidance_scale), ("mask_guidance_scale", mask_guidance_scale)):
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"{name}: got {value}, expected a finite number (1 or less for no guidance).")
    generators = generator if isinstance(generator, list) else [generator] if generator is not None else []
    if not all(isinstance(g, torch.Generator) for g in generators):
        raise TypeError(f"generator: got {generator!r}, expected a torch.Generator, or a list with one a volume.")
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(f"generator: got a list of {len(generator)}, expected {batch_size}, one for each volume.")
    for name, value in (
        ("prompt_embeds", prompt_embeds),
        ("negative_prompt_embeds", negative_prompt_embeds),
        ("latents", latents),
    ):
        if value is not None and not torch.isfinite(value).all():
            raise ValueError(f"{name}: got NaN or infinite values, expected finite numbers.")
    network = pipe.unet if pipe.mask_unet is None else pipe.mask_unet
    width = network.config.cross_attention_dim
    _check_embeds(width, "prompt_embeds", prompt_embeds, prompt_attention_mask)
    _check_embeds(width, "negative_prompt_embeds", negative_prompt_embeds, negative_prompt_attention_mask)
    if prompt_embeds is not None and negative_prompt_embeds is not None:
        if prompt_embeds.shape != negative_prompt_embeds.shape:
            raise ValueError(
                f"negative_prompt_embeds: got shape {tuple(negative_prompt_embeds.shape)}, expected that of "
                f"prompt_embeds, {tuple(prompt_embeds.shape)}."
            )
    elif prompt_embeds is not None and pipe.text_encoder is not None and max(guidance_scale, mask_guidance_scale) > 1:
        limit = pipe.config.max_sequence_length
        if prompt_embeds.shape[1] != limit:
            raise ValueError(
                f"prompt_embeds: got {prompt_embeds.shape[1]} tokens, expected max_sequence_length {limit}, or "
                "negative_prompt_embeds of the same length beside them."
            )
    hidden = getattr(getattr(pipe.text_encoder, "config", None), "hidden_size", None)
    if hidden is not None and hidden != width:
        raise ValueError(f"text_encoder: its states are {hidden} wide, the networks expect {width}.")
    if latents is not None and output == "pair" and pipe.sample_size is not None:
        factor = pipe.vae.downscale_factor
        shape = (batch_size, pipe.vae.config.latent_channels, *(n // factor for n in pipe.sample_size))
        if latents.shape != shape:
            raise ValueError(f"latents: got shape {tuple(latents.shape)}, expected {shape}.")
    if mask_latents is not None:
        shape, n = (batch_size, *pipe.sample_size), pipe.mask_scheduler.config.num_classes
        if mask_latents.shape != shape or mask_latents.dtype != torch.uint8 or mask_latents.max() >= n:
            raise ValueError(
                f"mask_latents: got {tuple(mask_latents.shape)} {mask_latents.dtype}, expected {shape} "
                f"torch.uint8 classes below {n} (`mask_scheduler.sample_noise`)."
            )
    for names, allowed in (
        (callback_on_step_end_tensor_inputs, pipe._callback_tensor_inputs),
        (mask_callback_on_step_end_tensor_inputs, pipe._mask_callback_tensor_inputs),
    ):
        if not isinstance(names, (list, tuple)) or any(name not in allowed for name in names):
            raise ValueError(f"callback tensor inputs: got {names}, expected a list of names among {allowed}.")


def _check_embeds(width: int, name: str, embeds: torch.Tensor | None, mask: torch.Tensor | None) -> None:
    if embeds is None:
        return
    if embeds.ndim != 3 or embeds.shape[2] != width:
        raise ValueError(f"{name}: got shape {tuple(embeds.shape)}, expected (B, M, {width}).")
    if mask is None or mask.shape != embeds.shape[:2]:
        got = "none" if mask is None else f"shape {tuple(mask.shape)}"
        raise ValueError(
            f"{name.replace('embeds', 'attention_mask')}: got {got}, expected {tuple(embeds.shape[:2])}, True where a "
            "token counts; `encode_prompt` returns it beside the embeds, which are padded."
        )
