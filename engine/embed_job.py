"""A job that makes vectors of texts, on the daemon's side: it waits for its turn like any other.

Knows nothing of processes. Rule: engine/README.md, "Embeddings".
"""

from engine.frames import Embed, FrameError, JobEmbedded, JobEvent, JobFinished, JobStarted
from engine.interface import Embedding, EmbedSpec, Finished
from engine.job import Job
from engine.remote_embeddings import estimated_text_tokens, reading_only
from protocol import limits
from protocol.fields import FinishReason


class EmbedJob(Job):
    """The texts of one `EmbedSpec`; `result` gives a vector for each, in their order."""

    def __init__(self, spec: EmbedSpec, adapter: int = 0) -> None:
        super().__init__(reading_only(spec), adapter=adapter)
        self.input_tokens = sum(map(estimated_text_tokens, spec.inputs))
        self._texts = spec
        self._vectors: dict[int, Embedding] = {}

    def message(self, handle: int) -> Embed:
        """What the worker is told."""
        spec = self._texts
        return Embed(handle, spec.inputs, spec.pooling, spec.normalized, spec.owner, self.adapter)

    @property
    def tokens_left(self) -> int:
        """None: it is only read."""
        return 0

    async def result(self) -> tuple[Embedding, ...]:
        """When all are done. EngineError of a job that failed."""
        while not isinstance(await self.next_event(), Finished):
            pass
        return tuple(self._vectors[index] for index in range(len(self._texts.inputs)))

    def take(self, event: JobEvent) -> None:
        """As a job's; vectors are kept until the last one."""
        if not isinstance(event, JobEmbedded):
            super().take(event)
            return
        width = len(event.vector)
        widths = {len(embedding.vector) for embedding in self._vectors.values()} or {width}
        is_new = event.index < len(self._texts.inputs) and event.index not in self._vectors
        if not is_new or not width or width % 4 or widths != {width}:
            raise FrameError("a vector that does not fit its job")
        self._vectors[event.index] = Embedding(event.vector, event.input_tokens)

    def _fits(self, event: JobEvent) -> bool:
        match event:
            case JobStarted():
                return 0 < event.input_tokens <= limits.ENGINE_EMBED_TOKENS_MAX
            case JobFinished():
                is_whole = len(self._vectors) == len(self._texts.inputs)
                return is_whole or event.reason is FinishReason.CANCELLED
        return False
