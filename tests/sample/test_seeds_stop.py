"""Random numbers without a state, and stop strings in a stream."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aptlab.sample import StopText, draw_uniform


def test_the_first_numbers_are_those_of_splitmix64():
    # SplitMix64 from seed 0 begins with 0xE220A8397B1DCDAF; `uniform` seeds a second one with that word.
    def splitmix(state: int) -> int:
        word = 2**64
        z = (state + 0x9E3779B97F4A7C15) % word
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % word
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % word
        return z ^ (z >> 31)

    assert splitmix(0) == 0xE220A8397B1DCDAF
    first = splitmix((splitmix(0) + 0x9E3779B97F4A7C15) % 2**64)
    assert draw_uniform(0, 0) == (first >> 16) / 2**48


def test_numbers_are_uniform_over_steps_and_over_seeds():
    for numbers in ([draw_uniform(3, step) for step in range(8000)], [draw_uniform(seed, 3) for seed in range(8000)]):
        counts = [0] * 16
        for number in numbers:
            counts[int(number * 16)] += 1
        chi2 = sum((count - 500) ** 2 / 500 for count in counts)
        assert chi2 < 37.7  # 99.9 % of chi-square with 15 degrees of freedom


def test_numbers_of_neighbouring_seeds_and_steps_are_uncorrelated():
    n = 8000
    for other in ([draw_uniform(6, step) for step in range(n)], [draw_uniform(5, step + 1) for step in range(n)]):
        pairs = zip([draw_uniform(5, step) for step in range(n)], other, strict=True)
        correlation = sum((a - 0.5) * (b - 0.5) for a, b in pairs) / n * 12
        assert abs(correlation) < 4 / n**0.5


def run(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    watch = StopText(stops)
    shown = [watch.push(piece) for piece in pieces]
    return [*shown, watch.finish()], watch.stopped


def test_text_ends_before_the_stop_string():
    assert run(["END"], ["one EN", "D two", "three"]) == (["one ", "", "", ""], True)


def test_an_ending_that_only_might_be_a_stop_string_is_held_back_then_shown():
    assert run(["END"], ["one E", "N", "T two"]) == (["one ", "", "ENT two", ""], False)
    assert run(["END"], ["one EN"]) == (["one ", "EN"], False)


def test_the_earliest_of_several_stop_strings_wins():
    shown, stopped = run(["cd", "b"], ["abcd"])
    assert ("".join(shown), stopped) == ("a", True)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_size_of_the_pieces_does_not_matter(size):
    text, stop = "aabaabaac and more", "aabaac"
    shown, stopped = run([stop], [text[i : i + size] for i in range(0, len(text), size)])
    assert ("".join(shown), stopped) == ("aab", True)


def test_without_stop_strings_everything_passes_at_once():
    assert run([], ["a", "b"]) == (["a", "b", ""], False)


def test_rules_and_stop_strings_load_no_torch():
    code = "import sys, aptlab.sample as s; s.SamplingRules(); s.StopText(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_names_an_attribute_that_is_not_there():
    import aptlab.sample

    with pytest.raises(AttributeError, match=r"'aptlab\.sample' has no attribute 'generat'"):
        _ = aptlab.sample.generat
