"""A curriculum for each section of a run, as for each task of a scenario: its rows alone, over its steps alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aptlab.curriculum.base import Answer, Clock, Course, Curriculum, Probe, RowSchedule, Scores
from aptlab.data.rows.numbered import Section, SectionedData
from aptlab.errors import AptlabError


def open_schedule(rule: Curriculum, course: Course, data: object) -> RowSchedule:
    """The schedule of a run: one over all rows, or one for each section of the data. Raises what the rule raises."""
    sections = find_sections(data)
    return SectionedSchedule(rule, course, sections) if sections else rule.open(course)


def find_sections(data: object) -> list[Section]:
    """The sections of the data, in order; none where a run has the same rows from its first to its last step."""
    sections = data.list_sections() if isinstance(data, SectionedData) else []
    return sections if len(sections) > 1 else []


class SectionedSchedule(RowSchedule):
    """One schedule after another; each counts steps and rows from the begin of its own section.

    Raises what the rule raises, with the name of the section in front.
    """

    name = "sections"

    def __init__(self, rule: Curriculum, course: Course, sections: Sequence[Section]) -> None:
        super().__init__(course)
        self.sections = list(sections)
        self.schedules = [_open_section(rule, course, section) for section in sections]
        self._rows_per_step = 0

    def find_section(self, step: int) -> int:
        """The section of an optimizer step; the last one has no end."""
        found = [number for number, section in enumerate(self.sections) if section.begin <= step]
        return found[-1]

    def prepare(self, clock: Clock) -> Sequence[Probe]:
        number = self.find_section(clock.step)
        self._rows_per_step = clock.rows_per_step
        asked = self.schedules[number].prepare(self._localize(clock, number))
        self._take_from(number)
        return [self._globalize(probe, number) for probe in asked]

    def answer(self, clock: Clock, answers: Sequence[Answer]) -> None:
        number = self.find_section(clock.step)
        self.schedules[number].answer(self._localize(clock, number), answers)
        self._take_from(number)

    def choose_rows(self, positions: np.ndarray) -> np.ndarray:
        number, local = self._locate(positions)
        return self.schedules[number].choose_rows(local) + self.sections[number].train[0]

    def measure_difficulty(self, positions: np.ndarray) -> float | None:
        """Mean rank within the section."""
        number, local = self._locate(positions)
        return self.schedules[number].measure_difficulty(local)

    def _locate(self, positions: np.ndarray) -> tuple[int, np.ndarray]:
        """The section of the positions of one step, and the positions in it."""
        number = self.find_section(int(positions[0]) // max(1, self._rows_per_step))
        return number, positions - self.sections[number].begin * self._rows_per_step

    def _localize(self, clock: Clock, number: int) -> Clock:
        section = self.sections[number]
        begin = section.begin * clock.rows_per_step
        return Clock(
            step=clock.step - section.begin,
            position=clock.position - begin,
            until=clock.until - begin,
            steps=(clock.steps if number + 1 == len(self.sections) else section.end) - section.begin,
        )

    def _globalize(self, probe: Probe, number: int) -> Probe:
        section = self.sections[number]
        first = (section.train if probe.side == "train" else section.val)[0]
        return dataclasses.replace(probe, ids=probe.ids + first)

    def _take_from(self, number: int) -> None:
        """Decisions of a section, at steps of the run."""
        section = self.sections[number]
        for decision in self.schedules[number].take_decisions():
            line = decision.line.replace("curriculum:", f"curriculum of {section.name}, from step {section.begin}:", 1)
            moved = dataclasses.replace(decision, step=decision.step + section.begin, line=line)
            self.decisions.append(moved)

    def state(self) -> dict[str, Any]:
        return {"rows_per_step": self._rows_per_step, "schedules": [one.state() for one in self.schedules]}

    def load(self, state: Mapping[str, Any]) -> None:
        self._rows_per_step = int(state["rows_per_step"])
        for schedule, own in zip(self.schedules, state["schedules"], strict=True):
            if own["tape"]["starts"]:  # or its section is still to come, and it begins as it is
                schedule.load(own)


def _open_section(rule: Curriculum, course: Course, section: Section) -> RowSchedule:
    try:
        return rule.open(_cut_course(course, section))
    except AptlabError as error:
        raise type(error)(f"{section.name}: {error}") from error


def _cut_course(course: Course, section: Section) -> Course:
    """The rows of a section by numbers of their own; with the run's seed, so that a pass has the rows of an epoch."""
    count = section.train[1]
    scores, val_scores = _cut_scores(course.scores, section.train), _cut_scores(course.val_scores, section.val)
    return Course(rows=count, seed=course.seed, scores=scores, val_scores=val_scores)


def _cut_scores(scores: Scores, part: tuple[int, int]) -> Scores:
    first, count = part
    return {name: values[first : first + count] for name, values in scores.items()}
