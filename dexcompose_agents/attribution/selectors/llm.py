"""A language model chooses: Eq. 6 as the paper has it, through any OpenAI-compatible endpoint.

The question describes both tasks in the skills' own words and gives the release test as a table; the answer names the
preserved and the released fingers with a reason. It is asked at temperature 0 with a strict schema, and checked: the
two lists must share out the five fingers, and the mask must be one of the candidates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from dexcompose_agents.attribution.selectors.chat import AnswerCache, AnswerError, Endpoint, Question
from dexcompose_agents.attribution.selectors.selection import (
    Candidate,
    Selection,
    Selector,
    in_order,
    percent,
    scores_of,
)
from dexcompose_envs.checks import real_number, whole_number
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.ownership import CANONICAL_ORDER, FingerMask
from dexcompose_envs.skills import make_skill, parse_pair

NAMES = {"TH": "thumb", "FF": "index finger", "MF": "middle finger", "RF": "ring finger", "LF": "little finger"}
SYSTEM = (
    "You plan manipulation with one dexterous robot hand of five fingers on a wrist that moves freely. "
    "You decide which fingers go on holding an object while the others do a second task."
)
_FINGERS = {"type": "array", "items": {"type": "string", "enum": list(CANONICAL_ORDER)}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "description": "one or two sentences that weigh the best masks"},
        "preserved": {**_FINGERS, "description": "fingers that keep holding"},
        "released": {**_FINGERS, "description": "all other fingers"},
    },
    "required": ["reason", "preserved", "released"],
    "additionalProperties": False,
}
LONGEST_REASON = 400


@dataclass(frozen=True)
class LLMSelector(Selector):
    """Asks a language model, see the module's docstring.

    The key comes from the variable OPENAI_API_KEY and is neither written nor shown.
    """

    name: ClassVar[str] = "llm"
    IN_CHAIN = False
    model: str = "gpt-4.1"
    """Model; it must accept temperature 0 and strict JSON schemas."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint; by default the variable OPENAI_BASE_URL, else OpenAI's."""
    timeout: float = 60.0
    """Seconds that a try may take."""
    retries: int = 4
    """How often a try is repeated, each time later, after a rate limit, a time-out or another failure."""
    questions: int = 3
    """How often the model is asked in all, if its answers can't be used."""
    cache: Path | None = Path("runs/llm")
    """Folder of answers by model and question: one that is there isn't asked for. None: no answer is kept."""

    def __post_init__(self) -> None:
        """Refuses senseless settings."""
        real_number("timeout", self.timeout, 1e-3, 3600.0)
        whole_number("retries", self.retries, 0)
        whole_number("questions", self.questions)
        if not self.model.strip():
            raise UsageError(f"model is {self.model!r}; expected the name of a model")
        if self.base_url is not None and not is_address(self.base_url):
            raise UsageError("base_url is no address; expected one such as 'http://localhost:8000/v1'")

    def facts(self) -> dict[str, Any]:
        """Model and host: an address may hold a password."""
        return {"model": self.model, "host": self.base_url and urlsplit(self.base_url).hostname}

    def select(self, candidates: Sequence[Candidate], pair: str) -> Selection:
        """The chosen mask; see the class.

        Raises:
            UsageError: Without candidates, or with neither a key nor an address nor a cached answer.
            MachineError: If the `openai` package is missing.
            EndpointError: If the endpoint doesn't answer, or its answers can't be used.
            FileError: If the cached answer is damaged or another question's.
        """
        candidates = in_order(candidates)
        if not candidates:
            raise UsageError("there are no candidate masks to choose from")
        question, masks = make_question(candidates, pair), [c.mask for c in candidates]
        cache = None if self.cache is None else AnswerCache(self.cache)
        text = None if cache is None else cache.find(self.model, question)
        if text is None:
            endpoint = Endpoint(self.model, self.base_url, self.timeout, self.retries, self.questions)
            try:
                text, (mask, reason) = endpoint.answer(question, lambda text: read_answer(text, masks))
            except UsageError as error:
                others = "or choose by another --selector: heuristic, utility or oracle"
                raise UsageError(f"no cached answer for {pair}, and {error}; give one, {others}") from None
            if cache is not None:
                cache.keep(self.model, question, text)
        else:
            try:
                mask, reason = read_answer(text, masks)
            except AnswerError as error:
                raise FileError(
                    f"'{cache and cache.path(self.model, question)}' holds a wrong answer: {error}"
                ) from None
        ranked = sorted(candidates, key=lambda c: c.mask != mask)
        scores = scores_of(ranked, lambda c: float(c.mask == mask))
        settings = {"model": self.model, "question": question.fingerprint}
        return Selection(mask, self.name, pair, f"{mask}, says {self.model}: {reason}", scores, settings)


def is_address(url: str) -> bool:
    """Whether it is a web address with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def make_question(candidates: Sequence[Candidate], pair: str) -> Question:
    """What the model is asked about a pair."""
    retention, interaction = (make_skill(name) for name in parse_pair(pair))
    fingers = ", ".join(f"{short} = {name}" for short, name in NAMES.items())
    rows = "\n".join(
        f"| {c.mask} | {'+'.join(c.mask.released)} | {c.mask.num_released} | {percent(c.p_ret)} | "
        f"{percent(c.p_ret_low)} | {percent(c.slip)} | {percent(c.p_clean)} | {percent(c.eta_b)} |"
        for c in candidates
    )
    return Question(
        SYSTEM,
        f"Fingers: {fingers}.\n\n"
        f"Task A, done and to be kept up: {retention.name}. {retention.DESCRIPTION}\n"
        f"Task B, to be done now by the wrist and the released fingers: {interaction.name}. "
        f"{interaction.DESCRIPTION}\n\n"
        "Each row is a mask: the fingers that would keep holding A's object and those released to B. It was measured "
        f"in {candidates[0].rollouts} trials that opened the released fingers while the wrist pitched down, swung and "
        "trembled:\n"
        "- retained: trials in which the object stayed in the hand, with the lower end of the 95 % interval;\n"
        "- slip: mean share of the allowed distance that the object slid in the hand;\n"
        "- clean: trials in which the released fingers no longer touched the object;\n"
        "- dexterity: share of the fingers' work in B's demonstrations that the released fingers can do.\n\n"
        "| preserved | released | number released | retained | at least | slip | clean | dexterity |\n"
        "|---|---|---|---|---|---|---|---|\n"
        f"{rows}\n\n"
        "Preserving more fingers holds better, releasing more leaves B freer. Composite success needs both: the object "
        "must stay through the whole of B, which lasts twice as long as a trial, and B must be done with the fingers "
        "that a person would use for it. Choose the mask with the highest chance of that, one of the rows.",
        "finger_mask",
        SCHEMA,
    )


def read_answer(text: str, masks: Sequence[FingerMask]) -> tuple[FingerMask, str]:
    """The mask of an answer, and its reason in one line.

    Raises:
        AnswerError: If it isn't JSON of the schema, contradicts itself, or names none of the masks.
    """
    try:
        answer = json.loads(text)
    except ValueError:
        raise AnswerError("it is not JSON") from None
    wanted = list(SCHEMA["required"])
    if not isinstance(answer, dict) or sorted(answer) != sorted(wanted):
        raise AnswerError(f"expected a JSON object with exactly {', '.join(wanted)}")
    for name in ("preserved", "released"):
        names = answer[name]
        if not isinstance(names, list) or not all(finger in CANONICAL_ORDER for finger in names):
            raise AnswerError(f"'{name}' is {json.dumps(names)[:80]}; expected a list of {', '.join(CANONICAL_ORDER)}")
    preserved, released = answer["preserved"], answer["released"]
    if sorted(preserved + released) != sorted(CANONICAL_ORDER):
        shared = f"'preserved' {preserved} and 'released' {released}"
        raise AnswerError(f"{shared} contradict each other; expected each of the five fingers in one of them, once")
    if not preserved or not released:
        raise AnswerError(
            f"it {'releases' if not preserved else 'preserves'} every finger; expected a row of the table"
        )
    mask = FingerMask(tuple(preserved))
    if mask not in masks:
        raise AnswerError(f"{mask} is no row of the table")
    if not isinstance(answer["reason"], str) or not answer["reason"].strip():
        raise AnswerError("'reason' is empty")
    reason = "".join(c if c.isprintable() else " " for c in answer["reason"])
    return mask, " ".join(reason.split())[:LONGEST_REASON]
