"""The 13 RULER tasks and the pass key, solved from the text of the prompt alone: regular expressions and counting.

Every solver reads only what a model reads. It imports nothing of aptlab, so it checks that an answer is in the
prompt, is the only one, and is what the question asks for.
"""

from __future__ import annotations

import re
from collections import Counter

FACT = re.compile(r"The secret (?:number|code|word) of (\S+) is ([\w-]+)\.")


def solve(task: str, prompt: str) -> list[str]:
    """The answers, in the order in which the question wants them told."""
    context, _, question = prompt.rpartition("\nQuestion: ")
    if task == "passkey":
        return passkey(prompt)
    if task.startswith("niah") or task == "needle":
        return needles(context, question)
    return {"vt": variables, "cwe": common, "fwe": frequent, "qa_1": one_hop, "qa_2": two_hops}[task](context, question)


def passkey(prompt: str) -> list[str]:
    (first, second) = re.findall(r"pass key is (\d+)\. Keep it in mind: (\d+) is the pass key\.", prompt)[0]
    assert first == second
    assert len(re.findall(r"pass key is \d", prompt)) == 1
    return [first]


def needles(context: str, question: str) -> list[str]:
    """All values of the keys that are asked for: in the order of the question, then of the text."""
    questions = re.search(r"of (.+?)\?", question)
    assert questions is not None
    keys = re.split(r", | and ", questions[1])
    facts = FACT.findall(context)
    found = [value for key in keys for name, value in facts if name == key]
    assert len(set(found)) == len(found)
    return found


def variables(context: str, question: str) -> list[str]:
    """Assignments read from top to bottom, as a program."""
    value = re.search(r"value (\d+)\?", question)
    assert value is not None
    values: dict[str, str] = {}
    for name, copied, constant in re.findall(r"VAR (\w+) = (?:VAR (\w+)|(\d+))\.", context):
        values[name] = values[copied] if copied else constant
    return [name for name, number in values.items() if number == value[1]]


def common(context: str, question: str) -> list[str]:
    """The k words with the highest counts; the next one has to come less often."""
    words = re.findall(r"\d+\. ([a-z]+)", context)
    return top(words, int(re.findall(r"Which (\d+)", question)[0]))


def frequent(context: str, question: str) -> list[str]:
    words = re.findall(r"[a-z]{6}", context.partition("\n")[2])
    return top(words, int(re.findall(r"Which (\d+)", question)[0]))


def top(words: list[str], count: int) -> list[str]:
    ranked = Counter(words).most_common()
    assert len(ranked) > count, "there is nothing to choose from"
    assert ranked[count - 1][1] > ranked[count][1], "the answer is not one"
    return [word for word, _ in ranked[:count]]


def one_hop(context: str, question: str) -> list[str]:
    person, relation = re.findall(r"Which town is it that ([A-Z]\w+ [A-Z]\w+) (.+?)\?", question)[0]
    return only(re.findall(rf"{person} {relation} ([A-Z]\w+)\.", context))


def two_hops(context: str, question: str) -> list[str]:
    person = re.findall(r"the company that ([A-Z]\w+ [A-Z]\w+) works for", question)[0]
    (company,) = only(re.findall(rf"{person} works for ([A-Z]\w+ Works)\.", context))
    return only(re.findall(rf"{company} has its seat in ([A-Z]\w+)\.", context))


def only(found: list[str]) -> list[str]:
    assert len(found) == 1, f"{len(found)} answers"
    return found
