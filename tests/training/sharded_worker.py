"""Trains a recipe under FSDP on CPUs: for `accelerate launch --config_file examples/accelerate_configs/fsdp.yaml`.

accelerate offers FSDP on accelerators only: on CPUs it keeps whole weights, without a word. torch can do it there.
So accelerate's state is made while it believes in GPUs, and the recipe is told to take that state as it is.
"""

import os
import sys

import torch
from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, TorchDynamoPlugin

from geomotiongpt import train_language_model

if __name__ == "__main__":
    torch.set_num_threads(1)
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    AcceleratorState(
        mixed_precision=os.environ["ACCELERATE_MIXED_PRECISION"],
        cpu=True,
        fsdp_plugin=FullyShardedDataParallelPlugin(),
        dynamo_plugin=TorchDynamoPlugin(),
        _from_accelerator=True,
    )
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    configured = "training.accelerator_config={use_configured_state: true}"
    train_language_model(sys.argv[1], [*sys.argv[2:], configured])
