from .scheduling_categorical_ddpm import CategoricalDDPMScheduler, CategoricalDDPMSchedulerOutput


__all__ = ["CategoricalDDPMScheduler", "CategoricalDDPMSchedulerOutput"]
