"""Packaging of geomotiongpt. The recipes of `hub_configs/` and the model card template are installed with it."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHARED_FILES = ("hub_configs", "model_card.md")


class BuildWithSharedFiles(build_py):
    """Copies the top-level files that commands need at run time into the package."""

    def run(self):
        super().run()
        for name in SHARED_FILES:
            source, target = ROOT / name, Path(self.build_lib) / "geomotiongpt" / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)


setup(
    name="geomotiongpt",
    version="0.1.0",
    description="Motion-language models whose motion tokens share one geometry with the language model",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["geomotiongpt", "geomotiongpt.*"]),
    package_data={"geomotiongpt.visualization": ["viewer_page/*"]},
    cmdclass={"build_py": BuildWithSharedFiles},
    install_requires=[
        "accelerate>=1.8,<2",
        "datasets>=4.3,<6",
        "huggingface-hub>=1.31,<3",
        "matplotlib>=3.9,<4",
        "numpy>=2.0,<3",
        "peft>=0.18,<1",
        "pillow>=10.1",
        "pyyaml>=6.0",
        "safetensors>=0.8,<1",
        "shtab>=1.13,<2",
        "torch>=2.6,<3",
        "tqdm>=4.66.3",
        "transformers>=5.21,<6",
    ],
    extras_require={
        "evaluation": [
            "evaluate>=0.4.6,<1",
            "pycocoevalcap>=1.2,<2",
            "rouge-score>=0.1.2,<1",
            "sacrebleu>=2.4,<3",
        ],
        "baselines": ["vector-quantize-pytorch>=1.31,<1.33"],
        "bert-score": ["bert-score>=0.3.13,<0.4"],
        "demo": ["gradio>=6.31,<7"],
        "mocap": ["c3d>=0.6,<0.7"],
        "video": ["av>=14,<19"],
        "dev": [
            "mypy>=1.14",
            "playwright>=1.49,<2",
            "pygltflib>=1.16,<2",
            "pytest>=9",
            "ruff>=0.9",
            "scipy>=1.13",
            "srt>=3.5,<4",
            "types-PyYAML",
            "types-tqdm",
            "webvtt-py>=0.5,<1",
        ],
    },
    entry_points={"console_scripts": ["geomotiongpt=geomotiongpt.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
