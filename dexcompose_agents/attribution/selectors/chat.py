"""One question to a chat model behind an OpenAI-compatible endpoint, answered in JSON of a given schema.

The `openai` package talks to the endpoint: it retries with back-off what may go away by itself (a rate limit, a broken
connection, a time-out, an error of the server). An answer that can't be used is asked for again, with what was wrong.
Answers that were used are kept in a cache by model and question, so that whoever has the cache needs no endpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dexcompose_envs import artefacts
from dexcompose_envs.errors import DexComposeError, MachineError, UsageError

T = TypeVar("T")
KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"


class EndpointError(DexComposeError, RuntimeError):
    """An endpoint that can't be reached, refuses, or gives no answer that can be used; one line without secrets."""


class AnswerError(ValueError):
    """An answer that can't be used; the message says to the model what is wrong with it."""


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        system: What it is to be.
        user: The question.
        name: Name of the answer's schema.
        schema: JSON schema of the answer, strict: all properties required, no others.
    """

    system: str
    user: str
    name: str
    schema: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of all that."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers, and how patiently it is asked.

    Attributes:
        model: Its name there.
        base_url: Address of the endpoint; None: `OPENAI_BASE_URL`, else OpenAI's.
        timeout: Seconds that a try may take.
        retries: How often a try that failed is repeated.
        questions: How often it is asked in all, if its answers can't be used.
    """

    model: str
    base_url: str | None = None
    timeout: float = 60.0
    retries: int = 4
    questions: int = 3

    def answer(self, question: Question, read: Callable[[str], T]) -> tuple[str, T]:
        """Asks until `read` makes something of the answer; an `AnswerError` of it asks again.

        Returns:
            The answer's text, and what `read` made of it.

        Raises:
            UsageError: If there is no key and no address either.
            MachineError: If the `openai` package is missing.
            EndpointError: If no answer came, or none that could be used.
        """
        key = os.environ.get(KEY_VARIABLE)
        if not key and not (self.base_url or os.environ.get(URL_VARIABLE)):
            raise UsageError(
                f"model '{self.model}' needs {KEY_VARIABLE}, or the base-url of a server that asks for none"
            )
        try:
            import openai
        except ModuleNotFoundError:
            raise MachineError(
                "the package 'openai' is missing; install it with: pip install 'dexcompose[llm]'"
            ) from None
        client = openai.OpenAI(
            api_key=key or "none", base_url=self.base_url, timeout=self.timeout, max_retries=self.retries
        )
        messages: list[Any] = [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.user},
        ]
        schema = {"name": question.name, "strict": True, "schema": dict(question.schema)}
        form: Any = {"type": "json_schema", "json_schema": schema}

        def ask() -> Any:
            return client.chat.completions.create(
                model=self.model, messages=messages, temperature=0.0, response_format=form
            )

        # The client's own time-out counts from byte to byte; between tries it waits 8 s at most by itself.
        patience, problem = 2 * (self.retries + 1) * self.timeout + 8 * self.retries, ""
        for _ in range(self.questions):
            try:
                text = _content(_within(patience, ask))
            except (openai.OpenAIError, TimeoutError) as error:
                # Some servers repeat the key in their errors.
                reason = " ".join(str(error).replace(key or "\0", "***").split())[:200]
                failed = f"'{self.model}' gave no answer ({type(error).__name__}: {reason})"
                raise EndpointError(failed) from None
            except ValueError as error:
                problem = str(error) if isinstance(error, AnswerError) else "the endpoint sent no JSON"
                continue
            try:
                return text, read(text)
            except AnswerError as error:
                problem = str(error)
                again = f"This answer can't be used: {problem}. Answer again."
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": again}]
        raise EndpointError(f"'{self.model}' gave no usable answer in {self.questions} tries; the last one: {problem}")


class AnswerCache:
    """Answers by model and question, one file each.

    Args:
        folder: Where they lie; it is made when the first one comes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, model: str, question: Question) -> Path:
        """Where the answer of a model to a question lies or would lie."""
        name = "".join(c if c.isalnum() or c in "-." else "_" for c in model)
        return self.folder / f"{name}-{question.fingerprint}.json"

    def find(self, model: str, question: Question) -> str | None:
        """The answer's text; None if there is none.

        Raises:
            ArtefactError: If the file is damaged, or another question's or model's.
        """
        path = self.path(model, question)
        if not path.exists():
            return None
        about, _ = artefacts.load(path, "chat_answer", model=model, fingerprint=question.fingerprint)
        return str(about["answer"])

    def keep(self, model: str, question: Question, answer: str) -> None:
        """Writes an answer down."""
        about = {"kind": "chat_answer", "model": model, "fingerprint": question.fingerprint}
        content = about | {"question": asdict(question), "answer": answer}
        artefacts.save(self.path(model, question), content, {}, "json")


def _content(completion: Any) -> str:
    """The text of a completion; an AnswerError if there is none, or not all of it."""
    choices = getattr(completion, "choices", None)
    if not choices:
        raise AnswerError("the endpoint sent no completion")
    message = getattr(choices[0], "message", None)
    if refusal := getattr(message, "refusal", None):
        raise AnswerError(f"the model refused: {str(refusal)[:100]}")
    content = getattr(message, "content", None)
    if not isinstance(content, str) or not content.strip():
        raise AnswerError("the answer is empty")
    if getattr(choices[0], "finish_reason", None) == "length":
        raise AnswerError("the answer was cut off")
    return content


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that has so many seconds; a TimeoutError if that isn't enough."""
    results: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            results.put((True, call()))
        except BaseException as error:  # it is raised again below
            results.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        succeeded, result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"not done after {seconds:g} s") from None
    if not succeeded:
        raise result
    return result
