from .model_card import guidegen_model_card
from .pipeline_guidegen import GuideGenPipeline, GuideGenPipelineOutput


__all__ = ["GuideGenPipeline", "GuideGenPipelineOutput", "guidegen_model_card"]
