"""Clinical prompts: free text to attributes and back. See clinical_prompt.py; any text is read by reader.py."""

from .attributes import AGES, RACES, SEXES, SITES, SIZES
from .clinical_prompt import ClinicalPrompt
from .staging import diameter_range
from .writer import NUM_STYLES


__all__ = ["AGES", "NUM_STYLES", "RACES", "SEXES", "SITES", "SIZES", "ClinicalPrompt", "diameter_range"]
