"""From a job's message to a sequence that can be fed: the prompt read, everything checked.

What gets through here may reach C. Must not know batches. Rule: engine/README.md.
"""

from engine.constraint import Constraint, Pieces, compile_constraint
from engine.embedding import Embedder
from engine.frames import Embed, EmbedInput, Recheck, Submit
from engine.native import NativeModel
from engine.prompts import PromptReader
from engine.recheck import Checker
from engine.sampling import Sampler, check_parameters
from engine.sequence import Sequence
from engine.text import TextStream
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import GenerationParameters

# Texts to embed are only read.
NO_OUTPUT = GenerationParameters(1, 0, 0, 1_000, 0, ())


class Intake:
    """Makes the sequences of one model."""

    def __init__(self, model: NativeModel, prompts: PromptReader) -> None:
        self._model = model
        self._prompts = prompts
        self._pieces: Pieces | None = None

    def read(self, job: Submit | Recheck | Embed) -> list[Sequence]:
        """A job's sequences: one for each text to embed, else one alone.

        EngineError: `engine.bad_spec`, `engine.prompt_too_long`, `engine.no_embeddings`.
        """
        if job.adapter > self._model.adapters:
            raise EngineError("engine.unknown_model", f"adapter {job.adapter}")
        return self._texts(job) if isinstance(job, Embed) else [self._prompt(job)]

    def _texts(self, job: Embed) -> list[Sequence]:
        pooling = job.pooling or self._model.pooling
        if pooling is None or self._model.pooling is None:
            raise EngineError("engine.no_embeddings", "it has no row for each token of a text")
        texts = [self._tokens(each, index) for index, each in enumerate(job.inputs)]
        if sum(map(len, texts)) > limits.ENGINE_EMBED_TOKENS_MAX:
            most = limits.ENGINE_EMBED_TOKENS_MAX
            raise EngineError("engine.prompt_too_long", f"over {most} tokens in all texts")
        return [
            Sequence(
                job.handle,
                tokens,
                len(tokens),
                0,
                Sampler(NO_OUTPUT, ()),
                TextStream(()),
                owner=_owner(job),
                adapter=job.adapter,
                embedder=Embedder(pooling, normalized=job.normalized),
                index=index,
            )
            for index, tokens in enumerate(texts)
        ]

    def _tokens(self, text: EmbedInput, index: int) -> list[int]:
        """The tokens of text number `index`, with those that the vocabulary puts around one."""
        vocabulary = self._model.vocabulary
        if isinstance(text, tuple):
            if any(token >= vocabulary.size for token in text):
                raise EngineError(
                    "engine.bad_spec", f"text {index}: the vocabulary has {vocabulary.size} tokens"
                )
            tokens = list(text)
        else:
            tokens = vocabulary.tokenize(text)
            if vocabulary.begins_texts and vocabulary.begin_token is not None:
                tokens.insert(0, vocabulary.begin_token)
            if vocabulary.ends_texts:
                tokens.append(vocabulary.end_token)
        if not tokens:
            raise EngineError("engine.bad_spec", f"text {index} is empty")
        if len(tokens) > self._model.context_tokens:
            most = self._model.context_tokens
            detail = f"text {index}: {len(tokens)} tokens, context {most}"
            raise EngineError("engine.prompt_too_long", detail)
        return tokens

    def _prompt(self, job: Submit | Recheck) -> Sequence:
        tokens = self._prompts.read(job.prompt)
        sequence = Sequence(
            job.handle,
            tokens,
            len(tokens),
            job.parameters.output_tokens_max,
            self._sampler(job, tokens),
            TextStream(job.parameters.stop + self._prompts.stop_strings(job.prompt)),
            self._model.vocabulary.end_tokens.union(job.parameters.stop_tokens),
            job.parameters.logprobs,
            owner=_owner(job),
            adapter=job.adapter,
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

    def _sampler(self, job: Submit | Recheck, tokens: list[int]) -> Sampler:
        vocabulary, parameters = self._model.vocabulary, job.parameters
        check_parameters(parameters, vocabulary.size)
        constraint = None
        if parameters.constraint is not None:
            grammar = compile_constraint(parameters.constraint)
            if self._pieces is None:
                self._pieces = Pieces(vocabulary.pieces, vocabulary.end_tokens)
            constraint = Constraint(grammar, self._pieces)
            constraint.begin(job.prompt.begun.encode())
        return Sampler(parameters, tokens, constraint, self._prompts.begun_tokens(job.prompt))


def _owner(job: Submit | Recheck | Embed) -> bytes:
    """Whom what is kept of a job serves: who asked, and only with the same adapter."""
    return bytes((job.adapter,)) + (b"" if isinstance(job, Recheck) else job.owner)
