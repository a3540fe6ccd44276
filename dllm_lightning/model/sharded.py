"""FSDP2 over all devices there are, on as many nodes as there are."""

from lightning.pytorch.strategies import ModelParallelStrategy


class ShardedModelParallel(ModelParallelStrategy):
    """Lightning's FSDP2, with every device holding a shard and reading batches of its own.

    Left to itself Lightning makes the devices of a node share one batch (tensor parallelism), which a network has to be
    rewritten for. A checkpoint is one file: it resumes on any number of devices, and loads without any of this.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__("auto", 1, save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
