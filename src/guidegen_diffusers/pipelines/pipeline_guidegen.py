"""GuideGen: a clinical sentence to a label map (19 organs and a tumour) and the CT that belongs to it.

    text -> ClinicalPrompt: read, resolved, written as one canonical sentence
    sentence -> text encoder -> Stage I (TCSS): categorical diffusion -> organ map, tumour map
                             -> Stage III (LFG): latent diffusion, guided by both maps and the text
                             -> Stage II (CAE): the decoder of the contrast-aware VQ autoencoder -> CT in HU

`__call__` reads in this order. A label map of one's own (`mask=`) takes the place of Stage I; `output="mask"` stops
after it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .._version import __version__
from ..case import Case, read_label_map
from ..configs import check_config, load_config
from ..grid import Grid
from ..labels import CLASSES, NUM_ORGAN_CLASSES, TUMOR, split_tumor
from ..models import (
    CategoricalUNet3DConditionModel,
    LatentSpread,
    LatentUNet3DConditionModel,
    SemanticEncoder3D,
    VQModel3D,
)
from ..models.latent_spread import class_means, class_shares, move_to_means
from ..prompts import ClinicalPrompt
from ..schedulers import CategoricalDDPMScheduler
from ..text_encoder import small_text_encoder
from ..tumor_sites import find_site
from .guidegen_inputs import CT_STAGE, MASK_STAGE, check_guidegen_inputs
from .strict_pipeline import StrictPipeline


__all__ = ["GuideGenPipeline", "GuideGenPipelineOutput"]

logger = logging.get_logger(__name__)

SAMPLING = {  # where neither a call nor the pipeline's config says otherwise
    "num_inference_steps": 50,
    "mask_num_inference_steps": 100,
    "guidance_scale": 2.5,
    "mask_guidance_scale": 2.0,
}
COMPONENTS = ("tokenizer", "text_encoder", *MASK_STAGE, *CT_STAGE, "latent_spread")
OPEN = 0.25  # abar below which the signal, less than half in amplitude, has not said yet what the first step decided
Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class GuideGenPipelineOutput(BaseOutput):
    """
    Args:
        ct (`np.ndarray` or `torch.Tensor` of shape `(B, X, Y, Z)`, `int16`): HU; latents with `output_type="latent"`;
            None with `output="mask"`.
        labels (`np.ndarray` or `torch.Tensor` of shape `(B, X, Y, Z)`, `uint8`): class ids.
        cases (`list[Case]`): the same volumes with their affine, prompt and provenance, ready to `save`; None for
            latents.
        prompts (`list[str]`): the sentence that each volume was made from, with everything that the text left open
            filled in; None where embeds were given.

    With `return_dict=False` the call gives all four, (ct, labels, cases, prompts), None included.
    """

    ct: np.ndarray | torch.Tensor | None
    labels: np.ndarray | torch.Tensor
    cases: list[Case] | None
    prompts: list[str] | None


class GuideGenPipeline(StrictPipeline):
    """
    Text to a paired label map and CT. Every component may be None where the call at hand does not need it.

    Args:
        tokenizer, text_encoder: any `transformers` encoder whose output has a `last_hidden_state`.
        mask_unet ([`CategoricalUNet3DConditionModel`]), mask_scheduler ([`CategoricalDDPMScheduler`]): Stage I.
        vae ([`VQModel3D`]): Stage II.
        semantic_encoder ([`SemanticEncoder3D`]), unet ([`LatentUNet3DConditionModel`]), scheduler: Stage III.
        latent_spread ([`LatentSpread`], *optional*): what the first step of Stage III draws and the next ones keep;
            nothing without it.
        sample_size (`tuple[int, int, int]`, *optional*): the grid X, Y, Z; the mask network's unless given.
        spacing (`float`, defaults to 3.0): edge of a voxel in mm.
        max_sequence_length (`int`, defaults to 128): prompts are padded or cut to this many tokens.
        sampling (`dict`, *optional*): the steps and guidance that suit these networks, by the names of the call's
            arguments; a call that gives none takes these.
    """

    model_cpu_offload_seq = "text_encoder->mask_unet->semantic_encoder->latent_spread->unet->vae"
    _optional_components = list(COMPONENTS)
    _callback_tensor_inputs = ["latents", "semantic_latents", "prompt_embeds", "prompt_attention_mask"]
    _mask_callback_tensor_inputs = ["labels", "prompt_embeds", "prompt_attention_mask"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
        mask_unet: CategoricalUNet3DConditionModel | None = None,
        mask_scheduler: CategoricalDDPMScheduler | None = None,
        vae: VQModel3D | None = None,
        semantic_encoder: SemanticEncoder3D | None = None,
        unet: LatentUNet3DConditionModel | None = None,
        scheduler: SchedulerMixin | None = None,
        latent_spread: LatentSpread | None = None,
        sample_size: list[int] | tuple[int, int, int] | None = None,
        spacing: float = 3.0,
        max_sequence_length: int = 128,
        sampling: dict | None = None,
    ):
        super().__init__()
        if unknown := set(sampling or {}) - set(SAMPLING):
            raise ValueError(f"sampling: got {sorted(unknown)}, expected of {', '.join(SAMPLING)}.")
        if latent_spread is not None and vae is not None:
            channels = (latent_spread.config.latent_channels, vae.config.latent_channels)
            if channels[0] != channels[1]:
                raise ValueError(
                    f"latent_spread: got {channels[0]} channels, expected the autoencoder's {channels[1]}."
                )
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            mask_unet=mask_unet,
            mask_scheduler=mask_scheduler,
            vae=vae,
            semantic_encoder=semantic_encoder,
            unet=unet,
            scheduler=scheduler,
            latent_spread=latent_spread,
        )
        for network in (mask_unet, vae, semantic_encoder, unet):
            if network is not None:  # the layout that bf16 convolutions on a CPU are fastest in
                network.to(memory_format=torch.channels_last_3d)
        if mask_unet is not None:
            made_for = mask_unet.config.sample_size
            sample_size = made_for if sample_size is None else sample_size
            if list(sample_size) != list(made_for):
                raise ValueError(
                    f"sample_size: got {list(sample_size)}, expected the mask network's {list(made_for)}."
                )
        self.register_to_config(
            sample_size=None if sample_size is None else list(sample_size),
            spacing=spacing,
            max_sequence_length=max_sequence_length,
            sampling=dict(sampling or {}),
        )

    @classmethod
    def from_config(cls, config: str | dict[str, Any], **components) -> GuideGenPipeline:
        """An untrained pipeline from a configuration: `"tiny"`, `"torso-6mm"`, ..., a JSON file or a dict like them.

        `components` replace what the configuration would make: `text_encoder` and `tokenizer` above all.
        """
        name = f"{config} (untrained)" if isinstance(config, str) else None
        config = load_config(config) if isinstance(config, str) else check_config(config)
        if ("tokenizer" in components) != ("text_encoder" in components):
            raise ValueError(f"from_config: got {sorted(components)}, expected tokenizer and text_encoder together.")
        if config["text_encoder"] is not None and "text_encoder" not in components:
            components["tokenizer"], components["text_encoder"] = small_text_encoder(**config["text_encoder"])
        classes = {
            "mask_unet": CategoricalUNet3DConditionModel,
            "mask_scheduler": CategoricalDDPMScheduler,
            "vae": VQModel3D,
            "semantic_encoder": SemanticEncoder3D,
            "unet": LatentUNet3DConditionModel,
            "scheduler": DDIMScheduler,
        }
        for part, component in classes.items():
            if part not in components:
                made = component.from_config(config[part])
                components[part] = made.eval() if isinstance(made, torch.nn.Module) else made
        pipeline = cls(
            **components,
            sample_size=config["mask_unet"]["sample_size"],
            spacing=config["spacing"],
            max_sequence_length=config["max_sequence_length"],
            sampling=config["sampling"],
        )
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    # --------------------------------------------------------------------------------------------- state of a run

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def mask_guidance_scale(self) -> float:
        return self._mask_guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    @property
    def do_mask_classifier_free_guidance(self) -> bool:
        return self._mask_guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the stage at work."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    @property
    def sample_size(self) -> tuple[int, int, int] | None:
        size = self.config.sample_size
        return None if size is None else tuple(size)

    # ------------------------------------------------------------------------------------------- parts of a call

    def check_inputs(self, **inputs) -> None:
        """Raise on what cannot be right in a call; see `check_guidegen_inputs`."""
        check_guidegen_inputs(self, **inputs)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device | None = None,
        num_volumes_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """(prompt_embeds, prompt_attention_mask, negative_prompt_embeds, negative_prompt_attention_mask), each
        (B * num_volumes_per_prompt, M, C) or (..., M); what is given is passed through, repeated."""
        device = device or self._execution_device
        if prompt_embeds is None:
            prompt = [prompt] if isinstance(prompt, str) else prompt
            prompt_embeds, prompt_attention_mask = self._encode_text(prompt, device)
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            count = len(prompt_embeds)
            negative_prompt = negative_prompt or ""
            negative_prompt = [negative_prompt] * count if isinstance(negative_prompt, str) else negative_prompt
            if self.text_encoder is None:
                raise ValueError(
                    "negative_prompt_embeds: got none, and no text encoder makes them; guidance above 1 needs them."
                )
            negative_prompt_embeds, negative_prompt_attention_mask = self._encode_text(negative_prompt, device)
        out = (prompt_embeds, prompt_attention_mask, negative_prompt_embeds, negative_prompt_attention_mask)
        return tuple(None if x is None else x.to(device).repeat_interleave(num_volumes_per_prompt, dim=0) for x in out)

    def _encode_text(self, sentences: list[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        limit = self.config.max_sequence_length
        tokens = self.tokenizer(
            sentences, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        ).to(device)
        for sentence in sentences:
            length = len(self.tokenizer(sentence, verbose=False)["input_ids"])
            if length > limit:
                logger.warning(
                    f"The prompt has {length} tokens and was cut to max_sequence_length {limit}: {sentence!r}"
                )
        mask = tokens["attention_mask"].bool()
        states = self.text_encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return states.last_hidden_state, mask

    def read_prompts(
        self, texts: list[str], generator: Generators, sites: list[str] | None = None
    ) -> list[ClinicalPrompt]:
        """What each text says, with everything filled that it leaves open; `sites` are those of given label maps.

        Draws come from copies of the generators: the noise is the same whatever the text leaves open, so that the
        sentence of a case and its seed draw the case again.
        """
        copies = [_copy(g) for g in generator] if isinstance(generator, list) else [_copy(generator)] * len(texts)
        read = []
        for i, text in enumerate(texts):
            prompt = ClinicalPrompt.parse(text)
            site = None if sites is None else sites[i]
            if site in prompt.sites:  # the label map has decided
                stage = dict(t=None, n=None, m=None, size=None) if site == "none" else {}
                prompt = dataclasses.replace(prompt, sites=frozenset({site}), **stage)
            elif site is not None:
                logger.warning(f"The tumour of the mask: {site}; that is not what the prompt says: {text!r}")
            read.append(prompt.resolve(copies[i]))
        return read

    def prepare_mask_latents(
        self, batch_size: int, generator: Generators, device: torch.device, mask_latents: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x_T of Stage I: uniform classes (B, X, Y, Z) `uint8`."""
        if mask_latents is not None:
            return mask_latents.to(device)
        return self.mask_scheduler.sample_noise((batch_size, *self.sample_size), generator, device)

    def prepare_latents(
        self,
        shape: Sequence[int],
        generator: Generators,
        device: torch.device,
        dtype: torch.dtype,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """z_T of Stage III: Gaussian noise of `shape`, at the scheduler's scale."""
        if latents is None:
            latents = randn_tensor(tuple(shape), generator=generator, device=device, dtype=dtype)
        elif tuple(latents.shape) != tuple(shape):
            raise ValueError(f"latents: got shape {tuple(latents.shape)}, expected {tuple(shape)}.")
        return latents.to(device, dtype) * self.scheduler.init_noise_sigma

    def prepare_spread(
        self, organs: torch.Tensor, tumor: torch.Tensor, size: Sequence[int], generator: Generators
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Shares of the classes in the cells of Stage III (B, N, x, y, z), and the normals (B, K) that its first step
        draws with; each None without a `latent_spread`."""
        if self.latent_spread is None:
            return None, None
        spread = self.latent_spread.config
        shape = (len(organs), spread.num_components)
        normal = randn_tensor(shape, generator=generator, device=organs.device, dtype=torch.float32)
        return class_shares(_join(organs, tumor), size, spread.num_classes), normal

    def prepare_mask(self, mask) -> tuple[torch.Tensor, torch.Tensor, Grid, bool]:
        """A user's label map as organ and tumour map on the model's grid, that grid, and whether it is synthetic."""
        source = read_label_map(mask)
        grid = Grid.centered(self.sample_size or source.labels.shape, self.config.spacing, source.grid.center)
        labels = grid.resample_labels(source.labels, source.affine)
        if not labels.any():
            raise ValueError("mask: got no organ within the model's field of view, expected the torso at its centre.")
        before, after = set(np.unique(source.labels)), set(np.unique(labels))
        absent = [c.name for c in CLASSES[1:NUM_ORGAN_CLASSES] if c.id not in before]
        lost = [c.name for c in CLASSES if c.id in before - after]
        if absent:
            logger.warning(f"The mask has no {', '.join(absent)}; the CT will be painted without them.")
        if lost:
            logger.warning(
                f"The mask's {', '.join(lost)} did not survive: outside the field of view of {grid.shape} voxels, or "
                f"too small for {self.config.spacing:g} mm."
            )
        organs, tumor = split_tumor(labels)
        return torch.from_numpy(np.ascontiguousarray(organs)), torch.from_numpy(tumor), grid, source.synthetic

    # ---------------------------------------------------------------------------------------------------- the call

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        mask: Any | None = None,
        output: str = "pair",
        num_inference_steps: int | None = None,
        mask_num_inference_steps: int | None = None,
        mask_timesteps: Sequence[int] | None = None,
        guidance_scale: float | None = None,
        mask_guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        raw_prompt: bool = False,
        num_volumes_per_prompt: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        mask_latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        mask_callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        mask_callback_on_step_end_tensor_inputs: Sequence[str] = ("labels",),
    ) -> GuideGenPipelineOutput | tuple:
        """
        Args:
            prompt (`str` or `list[str]`): free text, one or more; may be left out with a `mask`. A [`ClinicalPrompt`]
                reads it, draws what it leaves open (by the volume's generator), and the canonical sentence goes on.
            mask (`Case`, nibabel image, path, or a list of them): a label map of our classes to paint a CT on, on an
                affine of its own; it is resampled to the model's grid around its centre, and Stage I is skipped.
            output (`str`): `"pair"`, or `"mask"` to stop after Stage I.
            num_inference_steps, guidance_scale: of the CT stage; guidance of 1 or less is off. The pipeline's config
                says what suits it (`sampling`), else they are 50 and 2.5.
            mask_num_inference_steps, mask_guidance_scale: of the mask stage; likewise, else 100 and 2.
            mask_timesteps (`list[int]`, *optional*): decreasing timesteps in place of evenly spread ones.
            negative_prompt (`str` or `list[str]`, *optional*): what guidance leads away from; empty by default.
            raw_prompt (`bool`): send the text as it is instead, for networks that were trained on text as it is.
            num_volumes_per_prompt (`int`): draws of each prompt (and mask).
            generator: one for all volumes, or one for each, which makes a volume the same alone and in a batch.
                Without it each volume's generator is seeded from torch's global state, and its case records the seed.
            latents, mask_latents: starting noise of the CT stage and of the mask stage.
            prompt_embeds ... negative_prompt_attention_mask: results of `encode_prompt`, in place of prompts; embeds
                and their mask go together.
            output_type (`str`): `"np"`, `"pt"`, or `"latent"` for undecoded, scaled latents.
            return_dict (`bool`): a [`GuideGenPipelineOutput`], or the tuple (ct, labels, cases, prompts).
            callback_on_step_end, mask_callback_on_step_end: called after each step of the CT and of the mask stage as
                `callback(pipeline, step, timestep, tensors)`; what it returns of the tensors named in
                `callback_on_step_end_tensor_inputs` (`mask_...`) goes on.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        if isinstance(mask_callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            mask_callback_on_step_end_tensor_inputs = mask_callback_on_step_end.tensor_inputs

        # 1. Who and how many
        suited = SAMPLING | self.config.sampling
        num_inference_steps = suited["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        guidance_scale = suited["guidance_scale"] if guidance_scale is None else guidance_scale
        if mask_num_inference_steps is None:
            mask_num_inference_steps = suited["mask_num_inference_steps"]
        mask_guidance_scale = suited["mask_guidance_scale"] if mask_guidance_scale is None else mask_guidance_scale
        masks = mask if isinstance(mask, (list, tuple)) or mask is None else [mask]
        prompts = prompt if isinstance(prompt, list) else None if prompt is None else [prompt]
        count = len(prompts) if prompts else len(prompt_embeds) if prompt_embeds is not None else len(masks or [""])
        if masks is not None and len(masks) not in (1, count):
            raise ValueError(f"mask: got {len(masks)} label maps for {count} prompts, expected one, or one for each.")
        batch_size = count * num_volumes_per_prompt if isinstance(num_volumes_per_prompt, int) else 0
        self.check_inputs(
            prompt=prompt,
            mask=mask,
            output=output,
            output_type=output_type,
            num_inference_steps=num_inference_steps,
            mask_num_inference_steps=mask_num_inference_steps,
            mask_timesteps=mask_timesteps,
            guidance_scale=guidance_scale,
            mask_guidance_scale=mask_guidance_scale,
            negative_prompt=negative_prompt,
            num_volumes_per_prompt=num_volumes_per_prompt,
            generator=generator,
            batch_size=batch_size,
            prompt_embeds=prompt_embeds,
            prompt_attention_mask=prompt_attention_mask,
            negative_prompt_embeds=negative_prompt_embeds,
            negative_prompt_attention_mask=negative_prompt_attention_mask,
            latents=latents,
            mask_latents=mask_latents,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            mask_callback_on_step_end_tensor_inputs=mask_callback_on_step_end_tensor_inputs,
        )
        self._guidance_scale, self._mask_guidance_scale = guidance_scale, mask_guidance_scale
        self._interrupt = False
        device = self._execution_device
        if generator is None:  # on the CPU, so that the recorded seed draws the same on every device
            seeds = torch.randint(2**31 - 1, (batch_size,)).tolist()
            generator = [torch.Generator().manual_seed(seed) for seed in seeds]
        seeded = [_is_fresh(g) for g in (generator if isinstance(generator, list) else [generator])]
        given = {"latents": latents, "mask_latents": mask_latents, "prompt_embeds": prompt_embeds}
        run = self._settings() | {name: "given" for name, value in given.items() if value is not None}

        prepared = None
        if masks is not None:
            prepared = [self.prepare_mask(m) for m in masks]
            prepared = prepared * count if len(prepared) == 1 else prepared
            prepared = [p for p in prepared for _ in range(num_volumes_per_prompt)]

        # 2. The sentence: [negative, positive], of which a step without guidance reads the second half
        texts = [text for text in prompts or [""] * count for _ in range(num_volumes_per_prompt)]
        read = None
        if prompts is not None and not raw_prompt:
            sites = None if prepared is None else [_site(*p[:3]) for p in prepared]
            read = self.read_prompts(texts, generator, sites)
        sentences = texts if read is None else [p.render() for p in read]
        negatives = negative_prompt if isinstance(negative_prompt, list) else [negative_prompt or ""] * count
        negatives = [text for text in negatives for _ in range(num_volumes_per_prompt)]
        guided = (mask is None and self.do_mask_classifier_free_guidance) or (
            output == "pair" and self.do_classifier_free_guidance
        )
        embeds, attention, negative_embeds, negative_attention = self.encode_prompt(
            None if prompt_embeds is not None else sentences,
            device,
            1 if prompt_embeds is None else num_volumes_per_prompt,
            guided,
            negatives if prompt_embeds is None else negative_prompt,
            prompt_embeds,
            prompt_attention_mask,
            negative_prompt_embeds,
            negative_prompt_attention_mask,
        )
        if guided:
            embeds = torch.cat([negative_embeds, embeds])
            attention = torch.cat([negative_attention, attention])

        # 3. Stage I, or a label map of the user's
        if masks is None:
            organs, tumor = self._generate_mask(
                batch_size,
                embeds,
                attention,
                mask_num_inference_steps if mask_timesteps is None else None,
                mask_timesteps,
                generator,
                device,
                mask_latents,
                mask_callback_on_step_end,
                mask_callback_on_step_end_tensor_inputs,
            )
            grids = [Grid.centered(self.sample_size, self.config.spacing)] * batch_size
        else:
            organs, tumor = (torch.stack([p[i] for p in prepared]).to(device) for i in (0, 1))
            grids = [p[2] for p in prepared]
        labels = _join(organs, tumor)

        # 4. Stage III and the decoder of Stage II
        ct = None
        if output == "pair" and not self.interrupt:
            latents = self._generate_latents(
                organs,
                tumor,
                embeds,
                attention,
                num_inference_steps,
                generator,
                device,
                latents,
                callback_on_step_end,
                callback_on_step_end_tensor_inputs,
            )
            ct = latents if output_type == "latent" else self.decode_latents(latents)

        # 5. Volumes and cases
        cases = None
        if output_type != "latent":
            run |= {"mask": "generated" if mask is None else "given"}
            if mask is None:
                steps = {"mask_num_inference_steps": mask_num_inference_steps}
                steps = steps if mask_timesteps is None else {"mask_timesteps": [int(t) for t in mask_timesteps]}
                run |= steps | {"mask_guidance_scale": mask_guidance_scale}
            if ct is not None:
                run |= {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
            if self.interrupt:
                run |= {"interrupted": True}
            cases = [
                Case(
                    labels=labels[i].cpu().numpy(),
                    affine=grids[i].affine,
                    ct=None if ct is None else ct[i].cpu().numpy(),
                    prompt=sentences[i],
                    attributes={} if read is None else read[i].as_dict(),
                    provenance={
                        "synthetic": True,
                        "synthetic_labels": True if mask is None else prepared[i][3],
                        **self._seed(i, generator, seeded),
                        "text": texts[i],
                        "negative_prompt": negatives[i],
                        **run,
                    },
                )
                for i in range(batch_size)
            ]
        if output_type == "np":
            ct, labels = (None if x is None else x.cpu().numpy() for x in (ct, labels))
        self.maybe_free_model_hooks()
        said = sentences if prompt_embeds is None else None
        if not return_dict:
            return ct, labels, cases, said
        return GuideGenPipelineOutput(ct=ct, labels=labels, cases=cases, prompts=said)

    def _generate_mask(
        self,
        batch_size,
        prompt_embeds,
        prompt_attention_mask,
        steps,
        timesteps,
        generator,
        device,
        mask_latents,
        callback,
        names,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stage I to its organ map and tumour map, by Eq. 13."""
        labels = self.prepare_mask_latents(batch_size, generator, device, mask_latents)
        self.mask_scheduler.set_timesteps(steps, device, timesteps)
        timesteps = self.mask_scheduler.timesteps
        self._num_timesteps = len(timesteps)
        with self.progress_bar(total=len(timesteps)) as bar:
            bar.set_description("label map (TCSS)")
            for i, t in enumerate(timesteps):
                guided = self.do_mask_classifier_free_guidance
                before = labels
                state = torch.cat([labels] * 2) if guided else labels
                text, attention = _last(len(state), prompt_embeds, prompt_attention_mask)
                text = text.to(self.mask_unet.dtype)
                logits = self.mask_unet(state, t, text, attention, return_dict=False)[0]
                if guided:
                    logits = self.mask_scheduler.guide(*logits.chunk(2), self.mask_guidance_scale)
                labels = self.mask_scheduler.step(logits, t, labels, generator, return_dict=False)[0]
                if callback is not None:
                    tensors = {}
                    for name in names:
                        tensors[name] = locals()[name]
                    tensors = callback(self, i, t, tensors) or {}
                    labels = tensors.pop("labels", labels)
                    prompt_embeds = tensors.pop("prompt_embeds", prompt_embeds)
                    prompt_attention_mask = tensors.pop("prompt_attention_mask", prompt_attention_mask)
                bar.update()
                if self.interrupt:
                    break
        # Eq. 13: the organ map is the likeliest of background and organs, the tumour map where the tumour beats all
        _refuse_non_finite("mask_unet", logits)
        logits = self.mask_scheduler.original_logits(logits, t, before)
        labels = logits.max(1).indices.to(torch.uint8) if self.interrupt else labels
        organs = logits[:, :NUM_ORGAN_CLASSES].max(1).indices.to(torch.uint8)
        tumor = labels == TUMOR
        return torch.where(tumor, organs, labels), tumor.to(torch.uint8)

    def _generate_latents(
        self, organs, tumor, prompt_embeds, prompt_attention_mask, steps, generator, device, latents, callback, names
    ) -> torch.Tensor:
        """Stage III to the scaled latents of the CT."""
        semantic_latents = self.semantic_encoder(organs, tumor, return_dict=False)[0].float()
        shape = (len(organs), self.vae.config.latent_channels, *semantic_latents.shape[2:])
        latents = self.prepare_latents(shape, generator, device, torch.float32, latents)
        shares, normal = self.prepare_spread(organs, tumor, shape[2:], generator)
        self.scheduler.set_timesteps(steps, device=device)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        with self.progress_bar(total=len(timesteps)) as bar:
            bar.set_description("CT (LFG)")
            for i, t in enumerate(timesteps):
                guided = self.do_classifier_free_guidance
                sample = self.scheduler.scale_model_input(latents, t)
                state = torch.cat([sample, semantic_latents], dim=1)
                state = torch.cat([state] * 2) if guided else state
                text, attention = _last(len(state), prompt_embeds, prompt_attention_mask)
                dtype = self.unet.dtype
                noise = self.unet(state.to(dtype), t, text.to(dtype), attention, return_dict=False)[0].float()
                if guided:
                    noise = torch.lerp(*noise.chunk(2), self.guidance_scale)
                if shares is not None and (i == 0 or self.scheduler.alphas_cumprod[int(t)] < OPEN):
                    original = _original(noise, sample, self.scheduler, t)
                    if i == 0:
                        move = self.latent_spread(shares, normal)
                        means = class_means(original + move, shares)
                    else:
                        move = move_to_means(original, shares, means)
                    noise = _move_original(noise, move, self.scheduler, t)
                latents = self.scheduler.step(noise, t, latents, **extra, return_dict=False)[0]
                if callback is not None:
                    tensors = {}
                    for name in names:
                        tensors[name] = locals()[name]
                    tensors = callback(self, i, t, tensors) or {}
                    latents = tensors.pop("latents", latents)
                    semantic_latents = tensors.pop("semantic_latents", semantic_latents)
                    prompt_embeds = tensors.pop("prompt_embeds", prompt_embeds)
                    prompt_attention_mask = tensors.pop("prompt_attention_mask", prompt_attention_mask)
                bar.update()
                if self.interrupt:
                    break
        return latents

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents to CT in HU, (B, X, Y, Z) `int16`."""
        _refuse_non_finite("unet", latents)
        sample = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        _refuse_non_finite("vae", sample)
        limit = self.vae.config.hu_scale
        return (sample[:, 0].float() * limit).clamp(-limit, limit).round().to(torch.int16)

    def _seed(self, index: int, generator: Generators, seeded: list[bool]) -> dict[str, Any]:
        """What draws volume `index` again: a seed, and which draw of that generator; no seed if it was used before."""
        place = index if isinstance(generator, list) else 0
        own = generator[place] if isinstance(generator, list) else generator
        return {
            "seed": own.initial_seed() if seeded[place] else None,
            "index": index - place,
            "generator_device": own.device.type,
        }

    def _settings(self) -> dict[str, Any]:
        model = self.name_or_path or "unnamed"
        libraries = ("torch", "diffusers", "transformers", "numpy", "nibabel")
        return {
            "model": os.path.basename(os.path.normpath(model)) if os.path.isdir(model) else model,
            "dtype": str(self.dtype).removeprefix("torch."),
            "scheduler": type(self.scheduler).__name__,
            "versions": {"guidegen-diffusers": __version__, "python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in libraries},
        }


def _site(organs: torch.Tensor, tumor: torch.Tensor, grid: Grid) -> str:
    """The site of the tumour of a label map."""
    return find_site(_join(organs, tumor).numpy(), grid.affine).site


def _join(organs: torch.Tensor, tumor: torch.Tensor) -> torch.Tensor:
    """The label map of an organ map and a tumour map."""
    return torch.where(tumor.bool(), TUMOR, organs)


def _copy(generator: torch.Generator) -> torch.Generator:
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


def _is_fresh(generator: torch.Generator) -> bool:
    """Whether a generator stands where its seed put it."""
    twin = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    return torch.equal(twin.get_state(), generator.get_state())


def _refuse_non_finite(network: str, values: torch.Tensor) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(
            f"{network} gave NaN or infinite values in {values.dtype}; use bfloat16 or float32, or check its weights."
        )


def _original(output: torch.Tensor, sample: torch.Tensor, scheduler: SchedulerMixin, t) -> torch.Tensor:
    """The x_0 that the network's output stands for."""
    kind, abar = scheduler.config.prediction_type, scheduler.alphas_cumprod[int(t)].to(output)
    if kind == "sample":
        return output
    if kind == "epsilon":
        return (sample - (1 - abar).sqrt() * output) / abar.sqrt()
    return abar.sqrt() * sample - (1 - abar).sqrt() * output


def _move_original(output: torch.Tensor, move: torch.Tensor, scheduler: SchedulerMixin, t) -> torch.Tensor:
    """What the network would have said of an x_0 that lies `move` further."""
    kind, abar = scheduler.config.prediction_type, scheduler.alphas_cumprod[int(t)].to(output)
    if kind == "sample":
        return output + move
    per_move = {"epsilon": (abar / (1 - abar)).sqrt(), "v_prediction": (1 - abar).rsqrt()}[kind]
    return output - per_move * move


def _last(count: int, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """The last `count` rows: of [negative, positive] all, or the positive half once guidance is off."""
    return [None if x is None else x[-count:] for x in tensors]
