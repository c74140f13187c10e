"""The adapter beside lm_eval's own class for transformers models (HFLM): the same answers for the same weights."""

from __future__ import annotations

import random

import pytest
import torch

from aptlab.evals.scoring.harness import HarnessModel
from aptlab.restore.hf_export import export_network
from tests.evals.test_harness import requests
from tests.models.hf.test_tokenizers import PAGE, ImportedFamily

pytestmark = pytest.mark.slow
LENGTH = 48
TEXT = " ".join(PAGE[:4])


def draw_requests(seed):
    """80 pairs, 40 texts and 80 prompts: slices of a page, cut anywhere, in words, before and behind spaces."""
    rng = random.Random(seed)

    def cut(most, least=1):
        start = rng.randrange(len(TEXT) - most)
        return TEXT[start : start + rng.randint(least, most)]

    pairs = []
    for number in range(80):
        whole = cut(200, 2)
        at = rng.randrange(1, len(whole))
        context = "" if number % 10 == 0 else whole[:at] + " " * (number % 3)
        pairs.append((context, whole[at : at + 24].strip() or "x"))
    texts = [("",), *((cut(300),) for _ in range(39))]
    prompts = []
    for _ in range(80):
        limits = {"max_gen_toks": rng.choice([1, 5, 12, 30]), "until": rng.choice([[], ["\n"], ["e", "zz"], [" "]])}
        prompts.append((cut(120, 3).strip() or "x", limits))
    return [requests(*asked) for asked in (pairs, texts, prompts)]


@pytest.fixture(scope="module", params=["mistral", "gpt2", "llama3", "xglm"])
def sides(request, tmp_path_factory):
    """Our model, and HFLM on what we export of it."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    folder = tmp_path_factory.mktemp(request.param)
    loaded = ImportedFamily(request.param, folder / "given").ours
    export_network(loaded, folder / "out")
    # One at a time: in a batch HFLM goes on behind a stop string until all of its texts have one.
    theirs = HFLM(str(folder / "out"), device="cpu", dtype="float32", max_length=LENGTH, batch_size=1)
    return loaded, theirs


def near(found, expected):
    return found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_200_requests_get_the_answers_of_hflm_whatever_the_batch(sides):
    loaded, theirs = sides
    pairs, texts, prompts = draw_requests(0)
    pairs = [pair for pair in pairs if not pair.args[0] or theirs._encode_pair(*pair.args)[1]]  # else it refuses
    assert len(pairs) > 70
    scored = theirs.loglikelihood(pairs, disable_tqdm=True)
    rolling = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    written = theirs.generate_until(prompts, disable_tqdm=True)
    for batch in (1, 7, 64):
        ours = HarnessModel(loaded.net, loaded.tokenizer, length=LENGTH, batch=batch)
        found = ours.loglikelihood(pairs)
        assert near([nats for nats, _ in found], [nats for nats, _ in scored])
        assert [greedy for _, greedy in found] == [greedy for _, greedy in scored]
        assert near(ours.loglikelihood_rolling(texts), rolling)
        assert ours.generate_until(prompts) == written


def test_what_hflm_refuses_is_scored_whole_or_refused(sides):
    loaded, theirs = sides
    long = requests(("", TEXT[:300]))
    with pytest.raises(AssertionError):
        theirs.loglikelihood(long, disable_tqdm=True)
    ours = HarnessModel(loaded.net, loaded.tokenizer, length=LENGTH)
    ((nats, _),) = ours.loglikelihood(long)
    whole = HarnessModel(loaded.net, loaded.tokenizer, length=256)
    ((more, _),) = whole.loglikelihood(long)
    assert torch.isfinite(torch.tensor([nats, more])).all()
    assert nats == pytest.approx(more, rel=0.2)
    with pytest.raises(AssertionError, match="must be less than model's maximum sequence length"):
        theirs.generate_until(requests(("x", {"max_gen_toks": LENGTH})), disable_tqdm=True)
