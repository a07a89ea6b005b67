"""When the brokers are asked what the input topic is, and what an answer counts for."""

import pytest

from livestep.pipeline.engine.topic_state import TopicState
from livestep.pipeline.errors import TopicReplacedError
from livestep.pipeline.kafka.admin import NoAnswerError
from livestep.pipeline.kafka.topic_watch import TopicWatch
from livestep.pipeline.process.deadline import Deadline

INPUT, OUTPUT = "events", "predictions"


class ScriptedQuestion:
    """A question whose answer is known, or never comes."""

    is_answered = True

    def __init__(self, states):
        self.states = states

    def answer(self, timeout_s):
        if self.states is None:
            raise NoAnswerError("no broker answers")
        return self.states


class ScriptedAdmin:
    """Counts the questions, and the looks for other brokers."""

    def __init__(self):
        self.states = {INPUT: TopicState("id-1", 4), OUTPUT: TopicState("id-2", 4)}
        self.is_away = False
        self.questions = 0
        self.looks = 0

    def ask(self, names, timeout_s):
        self.questions += 1
        return ScriptedQuestion(None if self.is_away else dict(self.states))

    def find_brokers(self):
        self.looks += 1


@pytest.fixture
def admin():
    return ScriptedAdmin()


@pytest.fixture
def watch(admin):
    made = TopicWatch(
        admin,
        INPUT,
        [OUTPUT],
        auto_offset_reset="earliest",
        timeout_s=1.0,
        deadline=Deadline(),
    )
    admin.questions = 0
    return made


def test_one_question_serves_all_that_leaves_with_a_batch(watch, admin):
    watch.ask()
    assert [watch.verify().partitions for _ in range(3)] == [4, 4, 4]
    assert admin.questions == 1


def test_the_next_batch_asks_again(watch, admin):
    watch.ask()
    watch.verify()
    admin.states[INPUT] = TopicState("id-9", 4)
    watch.ask()
    with pytest.raises(TopicReplacedError):
        watch.verify()


def test_a_commit_without_a_batch_checks_the_topic_itself(watch, admin):
    watch.ask()
    watch.verify()
    watch.forget()
    admin.states[INPUT] = TopicState("id-9", 4)
    watch.ask_if_unknown()
    with pytest.raises(TopicReplacedError):
        watch.verify()


def test_after_a_question_without_an_answer_other_brokers_are_looked_for(watch, admin):
    admin.is_away = True
    watch.ask()
    with pytest.raises(NoAnswerError):
        watch.verify()
    assert admin.looks == 1
    # And a later question is a new one
    admin.is_away = False
    assert watch.verify().partitions == 4
