"""The time that is left, from units and passes that a clock measures."""

import pytest

from ce_align.progress import WHOLE, TimeLeft


@pytest.fixture
def job():
    """A job and its clock, which the test moves on."""

    class Job:
        now = 0.0

        def __init__(self) -> None:
            self.left = TimeLeft(lambda: self.now)

        def after(self, seconds, what, done, total):
            self.now += seconds
            self.left.told(what, done, total)
            return self.left.whole()

    return Job()


def test_nothing_is_known_before_anything_was_done(job):
    assert job.left.whole() is None
    assert job.after(0, WHOLE, 0, 3) is None
    assert job.after(5, "images", 0, 10) is None


def test_one_pass_is_the_job_where_there_is_nothing_else(job):
    job.after(0, "images", 0, 10)
    assert job.after(4, "images", 2, 10) == pytest.approx(16)
    assert job.after(16, "images", 10, 10) is None


def test_equal_units_take_what_the_first_has_taken(job):
    job.after(0, WHOLE, 0, 4)
    assert job.after(10, WHOLE, 1, 4) == pytest.approx(30)
    assert job.after(10, WHOLE, 2, 4) == pytest.approx(20)
    job.now += 4
    assert job.left.whole() == pytest.approx(16)
    assert job.after(16, WHOLE, 4, 4) == 0


def test_a_pass_tells_of_the_job_before_a_unit_is_done(job):
    job.after(0, WHOLE, 0, 3)
    job.after(0, "images", 0, 10)
    assert job.left.whole() is None
    # Ten of such a unit, one of which is over a tenth done.
    assert job.after(1, "images", 1, 10) == pytest.approx(9 + 2 * 10)


def test_what_was_stored_already_does_not_promise_a_quick_end(job):
    for done in range(5):
        job.after(0.1, WHOLE, done, 7)
    assert job.after(100, WHOLE, 5, 7) == pytest.approx(200)


def test_a_unit_that_is_slower_than_those_before_moves_the_end(job):
    job.after(0, WHOLE, 0, 3)
    job.after(10, WHOLE, 1, 3)
    job.after(0, "images", 0, 10)
    assert job.after(10, "images", 1, 10) == pytest.approx(90 + 100)


def test_what_a_training_resumes_from_was_not_done_now(job):
    job.after(0, "training", 900, 1000)
    assert job.after(10, "training", 910, 1000) == pytest.approx(90)
    assert job.left.of("training") == pytest.approx(90)
