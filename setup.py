import re
from pathlib import Path

from setuptools import find_packages, setup


HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "src/guidegen_diffusers/_version.py").read_text()).group(1)

setup(
    name="guidegen-diffusers",
    version=VERSION,
    description="GuideGen for diffusers: a clinical sentence to a full-torso label map and the CT that belongs to it",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"guidegen_diffusers": ["py.typed", "configs/*.json", "checkpoints/*/*", "checkpoints/*/*/*"]},
    install_requires=[
        "torch>=2.6,!=2.9.*",  # 2.9 has slow and wrong 3-D convolutions
        "diffusers>=0.42.1",
        "transformers>=5.0",
        "accelerate>=1.0",
        "safetensors>=0.5",
        "huggingface_hub>=2.0",
        "nibabel>=5.3",
        "einops>=0.8",
        "datasets>=5.0",  # the Nifti feature
        "numpy>=2.0",
        "scipy>=1.13",  # label geometry
        "pillow>=10.1",  # previews; the first with a scalable font of its own
        "pydicom>=3.0",  # DICOM series; Pillow decodes their JPEG 2000
        "pyarrow>=17.0",  # Parquet shards; `datasets` stands on it
        "filelock>=3.12",  # processes that close a set together; `huggingface_hub` stands on it
        "matplotlib>=3.8",  # plots of reports
        "tqdm>=4.66",  # progress bars
        "typer>=0.15",  # the command line
    ],
    extras_require={
        "features": ["torchvision>=0.21"],  # 2-D and video networks of metrics; the release that goes with torch 2.6
        "test": ["pytest>=8.0", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.9"],
    },
    entry_points={"console_scripts": ["guidegen = guidegen_diffusers.cli:app"]},
)
