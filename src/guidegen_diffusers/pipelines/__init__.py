from .pipeline_guidegen import GuideGenPipeline, GuideGenPipelineOutput


__all__ = ["GuideGenPipeline", "GuideGenPipelineOutput"]
