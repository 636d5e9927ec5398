"""The selector `llm` against a real server: good and bad answers, bad endpoints, the cache, and the key's secrecy."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents import cli
from dexcompose_agents.attribution.selectors import LLMSelector, make_candidates
from dexcompose_agents.attribution.selectors.chat import AnswerError, EndpointError
from dexcompose_agents.attribution.selectors.llm import make_question, read_answer
from dexcompose_agents.attribution.tables import MaskResult
from dexcompose_agents.attribution.usage import FingerUsage
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.ownership import FingerMask

from .endpoint import break_off, completion, dribble, hang, rate_limit, serving

PAIR = "GraspBall-PushButton"
KEY = "sk-very-secret-0123456789"
MASKS = FingerMask.candidates()
USAGE = FingerUsage((0.9, 0.04, 0.02, 0.02, 0.02), (1.0, 0, 0, 0, 0), (0.2,) * 5, "contact")
CANDIDATES = make_candidates([MaskResult(mask, 90 - i, 95, 100) for i, mask in enumerate(MASKS)], USAGE)


def text(preserved="TH RF LF", released="FF MF", reason="It holds and frees the index."):
    return json.dumps({"reason": reason, "preserved": preserved.split(), "released": released.split()})


GOOD = completion(text())


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def ask(tmp_path):
    """Asks a selector whose cache is empty at first."""

    def select(endpoint, pair=PAIR, candidates=CANDIDATES, **settings):
        known = {"base_url": endpoint and endpoint.url, "timeout": 5.0, "retries": 2, "cache": tmp_path / "cache"}
        return LLMSelector(**known | settings).select(candidates, pair)

    return select


def test_a_good_answer_is_taken(ask):
    with serving(GOOD) as endpoint:
        selection = ask(endpoint, model="some-model")
    assert str(selection.mask) == "TH+RF+LF" and selection.selector == "llm"
    assert selection.why == "TH+RF+LF, says some-model: It holds and frees the index."
    assert next(iter(selection.scores)) == "TH+RF+LF" and len(selection.scores) == 30
    (request,) = endpoint.requests
    assert request["model"] == "some-model" and request["temperature"] == 0
    schema = request["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert sorted(schema["schema"]["required"]) == sorted(schema["schema"]["properties"])
    assert schema["schema"]["additionalProperties"] is False
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_the_question_describes_both_tasks_and_every_mask(ask):
    with serving(GOOD) as endpoint:
        ask(endpoint)
    system, user = (message["content"] for message in endpoint.requests[0]["messages"])
    assert "hand" in system
    for words in ("GraspBall", "PushButton", "| TH+RF+LF | FF+MF | 2 |", "100 trials"):
        assert words in user
    assert sum(line.startswith("| ") for line in user.splitlines()) == 1 + 30
    assert make_question(CANDIDATES, PAIR).user != make_question(CANDIDATES, "PickStick-PushButton").user


def test_an_answer_is_asked_for_once_and_then_found_without_key_or_endpoint(ask, monkeypatch):
    with serving(GOOD) as endpoint:
        first = ask(endpoint)
        assert ask(endpoint, candidates=CANDIDATES[::-1]) == first
    assert len(endpoint.requests) == 1
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(None) == first
    with pytest.raises(UsageError, match=r"no cached answer for PickStick-PushButton, and .* OPENAI_API_KEY"):
        ask(None, pair="PickStick-PushButton")
    with pytest.raises(UsageError, match="no cached answer"):
        ask(None, model="another")


def test_without_a_cache_every_time_is_asked(ask, tmp_path):
    with serving(GOOD) as endpoint:
        ask(endpoint, cache=None)
        ask(endpoint, cache=None)
    assert len(endpoint.requests) == 2 and not (tmp_path / "cache").exists()


def test_a_cached_answer_to_another_question_or_model_is_refused(ask, tmp_path):
    with serving(GOOD) as endpoint:
        ask(endpoint, model="one")
        (mine,) = (tmp_path / "cache").iterdir()
        ask(endpoint, model="one", pair="PickStick-PushButton")
        ask(endpoint, model="two")
    for other in set((tmp_path / "cache").iterdir()) - {mine}:
        mine.write_bytes(other.read_bytes())
        with pytest.raises(
            FileError, match=r"one-\w+\.json' is the wrong file: a chat_answer whose (model|fingerprint) is"
        ):
            ask(None, model="one")


def test_a_cached_answer_that_was_altered_is_refused(ask, tmp_path):
    with serving(GOOD) as endpoint:
        ask(endpoint)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text(path.read_text().replace("It holds", "It drops"))
    with pytest.raises(FileError, match="altered or damaged"):
        ask(None)


BAD = {
    "not JSON": ("TH+RF+LF", "not JSON"),
    "a list": ("[]", "expected a JSON object"),
    "a number": ("3", "expected a JSON object"),
    "a missing part": ('{"preserved": ["TH"]}', "exactly reason, preserved, released"),
    "an unknown finger": (text("TH PINKY", "FF MF RF LF"), "'preserved' is .*PINKY"),
    "no list": (json.dumps({"reason": "r", "preserved": "TH", "released": []}), "'preserved' is"),
    "a contradiction": (text("TH FF RF LF", "FF MF"), "contradict each other"),
    "a finger that nobody has": (text("TH RF", "FF MF"), "contradict each other"),
    "a finger named twice": (text("TH TH RF LF", "FF MF"), "contradict each other"),
    "all preserved": (text("TH FF MF RF LF", ""), "preserves every finger"),
    "all released": (text("", "TH FF MF RF LF"), "releases every finger"),
    "no reason": (text(reason=" "), "'reason' is empty"),
    "nested": (json.dumps({"reason": "r", "preserved": [["TH"]], "released": []}), "'preserved' is"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_refused_and_asked_for_again(ask, name):
    bad, words = BAD[name]
    with pytest.raises(AnswerError, match=words):
        read_answer(bad, MASKS)
    with serving(completion(bad), GOOD) as endpoint:
        assert str(ask(endpoint).mask) == "TH+RF+LF"
    again = endpoint.requests[1]["messages"]
    assert again[2] == {"role": "assistant", "content": bad} and "can't be used" in again[3]["content"]


def test_a_mask_that_was_not_measured_is_refused():
    with pytest.raises(AnswerError, match=r"TH\+RF\+LF is no row"):
        read_answer(text(), [FingerMask.parse("TH+RF")])


def test_a_model_that_never_learns_ends_in_one_line(ask, tmp_path):
    words = "no usable answer in 3 tries; .* contradict"
    with serving(completion(text("TH", "FF"))) as endpoint, pytest.raises(EndpointError, match=words) as caught:
        ask(endpoint)
    assert len(endpoint.requests) == 3 and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "sent no completion"),
        ({"choices": []}, "sent no completion"),
        ({"choices": [{"index": 0}]}, "answer is empty"),
        (completion(None), "answer is empty"),
        (completion(text(), finish_reason="length"), "cut off"),
        (completion(None, refusal="I would rather not"), "refused: I would rather not"),
        (b"<html>proxy</html>", "sent no JSON"),
        (b"[1, 2", "sent no JSON"),
    ],
)
def test_malformed_completions_end_in_one_line(ask, body, words):
    with serving(body) as endpoint, pytest.raises(EndpointError, match=words) as caught:
        ask(endpoint, questions=2, retries=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trouble", [rate_limit(), break_off, (503, {"error": {"message": "busy"}}, {})])
def test_trouble_that_goes_away_is_waited_for(ask, trouble):
    with serving(trouble, GOOD) as endpoint:
        assert str(ask(endpoint).mask) == "TH+RF+LF"
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "words", "asked"),
    [
        (rate_limit(), "RateLimitError", 2),
        (hang, "APITimeoutError", 2),
        (dribble, "TimeoutError", 1),
        (break_off, "APIConnectionError", 2),
        ((401, {"error": {"message": f"bad key {KEY}"}}, {}), r"AuthenticationError: .*bad key \*\*\*", 1),
        ((400, {"error": {"message": "no temperature here"}}, {}), "BadRequestError: .*no temperature here", 1),
        ((404, b"nothing", {}), "NotFoundError", 1),
    ],
)
def test_trouble_that_stays_ends_in_one_line(ask, trouble, words, asked):
    with serving(trouble) as endpoint, pytest.raises(EndpointError, match=words) as caught:
        ask(endpoint, retries=asked - 1, timeout=0.3)
    assert len(endpoint.requests) == asked
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_nobody_listens(ask):
    with serving(GOOD) as endpoint:
        pass
    with pytest.raises(EndpointError, match="APIConnectionError"):
        ask(endpoint, retries=0)


def test_a_server_of_ones_own_needs_no_key(ask, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(GOOD) as endpoint:
        ask(endpoint)
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        ask(None, cache=None)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": " "}, "model is ' '"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"retries": -1}, "retries is -1"),
        ({"questions": 0}, "questions is 0"),
        ({"base_url": "localhost:8000"}, "base_url is no address"),
        ({"base_url": "http://"}, "base_url is no address"),
        ({"base_url": "http://a:b"}, "base_url is no address"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        LLMSelector(**settings)


def test_the_command_chooses_and_writes_no_secret(select_mask_files, tmp_path, capsys):
    out = tmp_path / "masks" / "mask.json"
    files = [f"--{name}={path}" for name, path in select_mask_files.items()]
    with serving(completion(text(reason="Line\none \u001b[31mred"))) as endpoint:
        url = endpoint.url.replace("http://", "http://user:password@")
        options = [f"--llm.base-url={url}", f"--llm.cache={tmp_path / 'cache'}", "--out", str(out)]
        assert cli.main(["select-mask", PAIR, "--selector", "llm", *files, *options]) == 0
    printed = capsys.readouterr()
    assert "preserve TH+RF+LF. TH+RF+LF, says gpt-4.1: Line one [31mred" in printed.out
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (KEY, "password"):
        assert secret.encode() not in written and secret not in printed.out + printed.err


def test_the_command_without_a_key_names_the_alternatives(select_mask_files, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    files = [f"--{name}={path}" for name, path in select_mask_files.items()]
    options = [f"--llm.cache={tmp_path / 'cache'}", "--out", str(tmp_path / "mask.json")]
    assert cli.main(["select-mask", PAIR, "--selector", "llm", *files, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for word in ("OPENAI_API_KEY", "base-url", "heuristic", "utility", "oracle"):
        assert word in line


@given(mask=st.sampled_from(MASKS), random=st.randoms(use_true_random=False))
def test_every_way_to_write_a_mask_is_read(mask, random):
    preserved, released = list(mask.preserved), list(mask.released)
    random.shuffle(preserved)
    random.shuffle(released)
    assert read_answer(text(" ".join(preserved), " ".join(released)), MASKS)[0] == mask


PARTS = st.sampled_from(["reason", "preserved", "released", "x", "TH", "FF"])
ANSWERS = st.recursive(
    st.none() | st.integers() | st.text() | PARTS, lambda inner: st.lists(inner) | st.dictionaries(PARTS, inner)
)


@given(answer=ANSWERS)
def test_whatever_else_comes_is_an_answer_error(answer):
    try:
        mask, _ = read_answer(json.dumps(answer), MASKS)
    except AnswerError:
        return
    assert mask in MASKS
