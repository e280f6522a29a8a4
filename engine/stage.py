"""The life of one model in a daemon, as a table. Rule: engine/README.md, "Models and memory"."""

from enum import Enum
from typing import Final


class Stage(Enum):
    """Where a model is."""

    COLD = "cold"
    LOADING = "loading"
    SERVING = "serving"
    RESTING = "resting"
    WITHDRAWN = "withdrawn"


class StageEvent(Enum):
    """What moves it."""

    LOAD = "load"
    READY = "ready"
    FAIL = "fail"
    UNLOAD = "unload"
    WITHDRAW = "withdraw"
    RETURN = "return"


# An absent cell is our own bug.
STAGES: Final = {
    (Stage.COLD, StageEvent.LOAD): Stage.LOADING,
    (Stage.LOADING, StageEvent.READY): Stage.SERVING,
    (Stage.LOADING, StageEvent.FAIL): Stage.RESTING,
    (Stage.LOADING, StageEvent.WITHDRAW): Stage.WITHDRAWN,
    (Stage.SERVING, StageEvent.FAIL): Stage.RESTING,
    (Stage.SERVING, StageEvent.WITHDRAW): Stage.WITHDRAWN,
    (Stage.SERVING, StageEvent.UNLOAD): Stage.COLD,
    (Stage.RESTING, StageEvent.LOAD): Stage.LOADING,
    (Stage.RESTING, StageEvent.UNLOAD): Stage.COLD,
    (Stage.WITHDRAWN, StageEvent.RETURN): Stage.COLD,
    # It went its own way in the moment in which it was unloaded.
    (Stage.LOADING, StageEvent.UNLOAD): Stage.COLD,
    (Stage.WITHDRAWN, StageEvent.UNLOAD): Stage.COLD,
}
