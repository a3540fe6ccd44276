"""Sweeps: which values were tried, what each job was called, and what came out, as a table and as a figure.

The folder of a sweep is the whole of its memory. Launching is not done here: Hydra's sweeper composes the jobs.
"""

from dllm_lightning.sweep import names as names
from dllm_lightning.sweep import slurm as slurm
from dllm_lightning.sweep.report import SweepReport as SweepReport
from dllm_lightning.sweep.results import Job as Job
from dllm_lightning.sweep.results import Sweep as Sweep
from dllm_lightning.sweep.results import read as read
