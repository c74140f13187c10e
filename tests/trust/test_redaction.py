"""Short secrets stay out of what is written down, and nothing else is hidden for them."""

from __future__ import annotations

import pytest

from aptlab.config import compose
from aptlab.redact import redact_overrides, redact_text, redact_value, remember_secret


@pytest.mark.parametrize("secret", ["a", "ab1", "hunter", 7, 1234, ["x"], "true1"])
def test_a_value_under_a_secret_name_is_hidden_whatever_its_length(secret):
    assert redact_value({"logger": {"api_key": secret}}) == {"logger": {"api_key": "***"}}
    assert redact_overrides([f"logger.api_key={secret}"]) == ["logger.api_key=***"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=1234", "password=***"),
        ("x={password:77,n:1}", "x={password:***,n:1}"),
        ("run --api-key 12345 --steps 5", "run --api-key *** --steps 5"),
        ('{"access_token": 99}', '{"access_token": ***}'),
        ("loss per token=2.3", "loss per token=2.3"),
    ],
)
def test_a_number_under_a_secret_name_is_a_secret(text, shown):
    assert redact_text(text) == shown


@pytest.mark.parametrize("secret", ["abc1234", "s3cr3t", "p@ss!", "fooBar"])
def test_a_short_secret_is_hidden_as_a_word_of_its_own(secret):
    remember_secret(secret)
    assert redact_value({"note": secret, "in": f"x{secret}y"}) == {"note": "***", "in": f"x{secret}y"}
    assert redact_text(f"failed with {secret}, and x{secret} stays") == f"failed with ***, and x{secret} stays"


@pytest.mark.parametrize("secret", ["1", "128", "1e-3", "true", "debug", "auto", "train", "v1"])
def test_a_secret_like_an_ordinary_word_or_number_hides_none(secret):
    remember_secret(secret)
    assert redact_value({"size": secret}) == {"size": secret}


@pytest.mark.parametrize("secret", ["ab", "hunter", "12", "abc1234"])
def test_a_secret_of_the_environment_is_hidden_wherever_an_interpolation_brings_it(secret, monkeypatch):
    monkeypatch.setenv("APTLAB_TEST_PASSWORD", secret)
    overrides = ["job=x-${oc.env:APTLAB_TEST_PASSWORD}", "source=text", "data.cache=${job}"]
    overrides += ["source.files=['${oc.env:APTLAB_TEST_PASSWORD}/a','table-of-hunters']"]
    public = compose("train", overrides).public()
    assert (public["job"], public["data"]["cache"]) == ("x-***", "x-***")
    assert public["source"]["files"] == public["data"]["source"]["files"] == ["***/a", "table-of-hunters"]
    assert public["context"] == 256


def test_a_variable_that_is_no_secret_is_written_down(monkeypatch):
    monkeypatch.setenv("APTLAB_TEST_PLACE", "scratch")
    assert compose("train", ["job=${oc.env:APTLAB_TEST_PLACE}"]).public()["job"] == "scratch"
