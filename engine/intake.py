"""From a job's message to a sequence that can be fed: the prompt read, everything checked.

What gets through here may reach C. Must not know batches. Rule: engine/README.md.
"""

from engine.constraint import Constraint, Pieces, compile_constraint
from engine.frames import Recheck, Submit
from engine.native import NativeModel
from engine.prompts import PromptReader
from engine.recheck import Checker
from engine.sampling import Sampler, check_parameters
from engine.sequence import Sequence
from engine.text import TextStream
from protocol.errors import EngineError
from protocol.fields import GenerationParameters


class Intake:
    """Makes the sequences of one model."""

    def __init__(self, model: NativeModel, prompts: PromptReader) -> None:
        self._model = model
        self._prompts = prompts
        self._pieces: Pieces | None = None

    def read(self, job: Submit | Recheck) -> Sequence:
        """A job's sequence. EngineError: `engine.bad_spec`, `engine.prompt_too_long`."""
        tokens = self._prompts.read(job.prompt)
        sequence = Sequence(
            job.handle,
            tokens,
            len(tokens),
            job.parameters.output_tokens_max,
            self._sampler(job.parameters, tokens),
            TextStream(job.parameters.stop + self._prompts.stop_strings(job.prompt)),
            self._model.vocabulary.end_tokens.union(job.parameters.stop_tokens),
            job.parameters.logprobs,
            owner=b"" if isinstance(job, Recheck) else job.owner,
        )
        if isinstance(job, Recheck):
            self._claim(sequence, job)
        return sequence

    def _claim(self, sequence: Sequence, job: Recheck) -> None:
        """Let the sequence read the output that is claimed, too."""
        room = self._model.context_tokens - sequence.input_tokens
        # The last token made needs no place of its own.
        if len(job.token_ids) > min(room + 1, job.parameters.output_tokens_max):
            raise EngineError("engine.bad_spec", "more tokens claimed than can be made")
        vocabulary = self._model.vocabulary
        sequence.checker = Checker(
            job.token_ids,
            sequence.sampler,
            sequence.text,
            vocabulary.pieces,
            sequence.ends,
        )
        sequence.unfed = [*sequence.unfed, *job.token_ids[:room]]

    def _sampler(self, parameters: GenerationParameters, tokens: list[int]) -> Sampler:
        vocabulary = self._model.vocabulary
        check_parameters(parameters, vocabulary.size)
        if parameters.constraint is None:
            return Sampler(parameters, tokens)
        grammar = compile_constraint(parameters.constraint)
        if self._pieces is None:
            self._pieces = Pieces(vocabulary.pieces, vocabulary.end_tokens)
        return Sampler(parameters, tokens, Constraint(grammar, self._pieces))
