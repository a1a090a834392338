"""The credential's shape, and that nothing shows it."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.sigmic import SigmicClient
from sigmic_guard.sigmic.credentials import Credential

KEY = "sigmic_" + "0123456789abcdef" * 4


@pytest.mark.parametrize("value", [KEY, "sigmic_x", "eyJhbGciOi.J9-_.x", "eyJx"])
def test_accepted(value: str) -> None:
    """A key begins with sigmic_ or eyJ; what follows is the server's business."""
    assert Credential(value).headers["Authorization"] == f"Bearer {value}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sigmic_",
        "eyJ",
        "secret",
        "Sigmic_abc",
        " sigmic_abc",
        "sigmic_abc\n",
        "sigmic_a bc",
        "sigmic_a\tb",
        "sigmic_a\x00b",
        "sigmic_a\x7fb",
        "sigmic_é",
        "sigmic_\ud800",
        "sigmic_a\u2028",
        "'sigmic_abc'",
        "Bearer sigmic_abc",
    ],
)
def test_refused(value: str) -> None:
    """Anything else is refused; neither the message nor a traceback with locals shows it."""
    with pytest.raises(ConfigurationError) as caught:
        Credential(value)
    if len(value) > 7:
        assert value not in str(caught.value)
    assert caught.value.__context__ is None
    with pytest.raises(ConfigurationError) as caught:
        SigmicClient(value)
    frames = list(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    )
    assert not any("value" in (frame.locals or {}) for frame in frames[1:])
    assert not any("api_key" in (frame.locals or {}) for frame in frames[1:])


@pytest.mark.parametrize("value", [b"sigmic_abc", 7, object()])
def test_no_string(value: object) -> None:
    """What is no string is refused."""
    with pytest.raises(ConfigurationError, match="must be a string"):
        Credential(value)  # type: ignore[arg-type]


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is SIGMIC_API_KEY's; without that, the error names both ways."""
    monkeypatch.setenv("SIGMIC_API_KEY", "sigmic_env")
    assert Credential().headers["Authorization"] == "Bearer sigmic_env"
    monkeypatch.delenv("SIGMIC_API_KEY")
    with pytest.raises(ConfigurationError, match=r"api_key=.*SIGMIC_API_KEY"):
        Credential()


def test_hidden() -> None:
    """No repr, str, format, copy, pickle or dict of headers gives it away."""
    credential = Credential(KEY)
    client = SigmicClient(KEY, "http://localhost")
    shown = [repr(credential), str(credential), f"{credential}", repr(client), str(vars(client))]
    shown += [repr(credential.redactor()), str(vars(client._control))]
    shown += [repr(credential.headers), repr([credential.headers["Authorization"]])]
    assert not any(KEY in text or KEY[7:] in text for text in shown)
    assert not hasattr(credential, "__dict__")
    for thing in (credential, client):
        for dump in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled"):
                dump(thing)


def test_the_header() -> None:
    """The header holds the key all the same."""
    assert str(Credential(KEY).headers["Authorization"]) == f"Bearer {KEY}"


def test_the_fingerprint() -> None:
    """The fingerprint is short, stable, and another for another key."""
    assert Credential(KEY).fingerprint == Credential(KEY).fingerprint
    assert Credential(KEY).fingerprint != Credential(KEY + "0").fingerprint
    assert len(Credential(KEY).fingerprint) == 12
    assert SigmicClient(KEY).credential_fingerprint == Credential(KEY).fingerprint
