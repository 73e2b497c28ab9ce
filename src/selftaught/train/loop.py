"""The one loop that trains everything: pre-training, probes and fine-tuning.

``fit`` goes from the last checkpoint (or step 0) to the last step. Batch t and all that is random about it depend on
(seed, t) alone, so a run that was killed and started again is the same run. What a step does is in ``step.py``, what a
checkpoint holds in ``snapshot.py``, when it is written in ``saving.py``; health, online kNN and pictures come in as
callbacks.
"""

from __future__ import annotations

from selftaught.train.callbacks import Callback, Result, State
from selftaught.train.settings import Settings
from selftaught.train.task import Task

__all__ = ["Callback", "Result", "Settings", "State", "Task"]
