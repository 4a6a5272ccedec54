"""From submissions to a gradebook: a job that has a grade in the cache keeps it, the others are graded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from checks.kit.lessons.lesson import find_lesson
from checks.kit.submissions.grade_cache import GradeCache
from checks.kit.submissions.jobs import Job, RunSettings, files_of, make_job, make_jobs
from checks.kit.submissions.likeness import likeness
from checks.kit.submissions.model import Grade, Gradebook, LearnerGrades, Submission
from checks.kit.submissions.work.worker import GraderFailed, OnResult

JobRunner = Callable[[Sequence[Job], RunSettings, OnResult], Awaitable[None]]
"""Grades jobs, in any order, and reports each one as it ends: `grade_here` or `grade_on_cluster`."""


@dataclass(slots=True)
class GradingRun:
    """One run of `workbook grade`: call `plan`, then `grade`, then `gradebook`.

    `todo` are the jobs to grade. `failed` has those that ended without a grade, by key, with the grader's message.
    """

    submissions: list[Submission]
    settings: RunSettings
    cache: GradeCache
    todo: list[Job] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    _jobs: dict[tuple[int, int], Job] = field(default_factory=dict)
    _grades: dict[str, Grade] = field(default_factory=dict)

    def plan(self, *, again: bool = False) -> None:
        """Finds out which jobs have to be graded; with `again`, all of them."""
        self._jobs = make_jobs(self.submissions, self.settings)
        for job in {job.key: job for job in self._jobs.values()}.values():
            grade = None if again else self.cache.load(job)
            if grade is None:
                self.todo.append(job)
            else:
                self._grades[job.key] = grade
        self._note_likeness()

    @property
    def remaining(self) -> int:
        """How many jobs of `todo` have not ended yet."""
        return sum(job.key not in self._grades and job.key not in self.failed for job in self.todo)

    @property
    def cached(self) -> int:
        """After `plan`: how many jobs have a grade already."""
        return len(self._grades)

    async def grade(self, run_jobs: JobRunner, on_end: Callable[[Job], None]) -> None:
        """Grades the jobs of `todo`. Each grade is in the cache before `on_end` is called for its job. Raises OSError.

        One with an error, which says nothing about the submission, is not cached: the next run tries again.
        """

        def on_result(job: Job, result: Grade | GraderFailed) -> None:
            if isinstance(result, Grade):
                self._grades[job.key] = result
                if not result.has_error:
                    self.cache.save(job, result)
            else:
                self.failed[job.key] = str(result)
            on_end(job)

        if self.todo:
            await run_jobs(self.todo, self.settings, on_result)

    def gradebook(self, numbers: Sequence[int], isolation: str) -> Gradebook:
        """All grades so far of the lessons of these numbers; a job that failed, or has not ended, has none."""
        lessons = [find_lesson(number) for number in numbers]
        servers = sorted({grade.report.postgres for grade in self._grades.values()} - {""})
        gradebook = Gradebook(lessons, ", ".join(servers), isolation, self.settings.kit)
        gradebook.learners = [self.learner(index) for index in range(len(self.submissions))]
        return gradebook

    def learner(self, index: int) -> LearnerGrades:
        """The grades so far of the submission at this place."""
        learner = LearnerGrades(self.submissions[index])
        for number in learner.submission.lessons:
            key = self._jobs[index, number].key
            if grade := self._grades.get(key):
                learner.grades[number] = grade
            elif key not in self.failed:
                learner.waiting |= {number}
        return learner

    def places(self, key: str) -> list[int]:
        """The places in `submissions` of those who submitted the job of this key."""
        return [index for (index, _), job in self._jobs.items() if job.key == key]

    def learners(self, key: str) -> list[str]:
        """The learners who submitted the job of this key."""
        return [self.submissions[index].learner for index in self.places(key)]

    def _note_likeness(self) -> None:
        """Adds sentences for the instructor: who has the same files as another one or the solution, or nearly so."""
        learners = [submission.learner for submission in self.submissions]
        for index, sentences in likeness(self._jobs, learners, self._solution_jobs()).items():
            self.submissions[index] = replace(self.submissions[index], for_instructor=sentences)

    def _solution_jobs(self) -> list[Job]:
        numbers = {number for _, number in self._jobs}
        # a copy of the workbook for an autograder may lack the solutions
        lessons = [lesson for number in numbers if (lesson := find_lesson(number)).solution.is_dir()]
        return [make_job(lesson, files_of(lesson.solution), self.settings) for lesson in lessons]
