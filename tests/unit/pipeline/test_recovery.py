"""What is done with an assigned partition: each row of the table at the head of recovery.py."""

from dataclasses import replace

import pytest

from livestep.pipeline.engine.commit_mark import CommitMark
from livestep.pipeline.engine.recovery import Situation, decide
from livestep.pipeline.errors import (
    HistoryMissingError,
    OffsetsResetError,
    OtherModelError,
    PartitionsChangedError,
    StateError,
)
from livestep.pipeline.state.stored_partition import DamagedPartition, StoredPartition

OURS = CommitMark("aa", partitions=4, start=3, topic="now/0")
THEIRS = CommitMark("bb", partitions=4, start=3, topic="now/0")
GONE = replace(OURS, topic="gone")
BASE = Situation(
    topic="events",
    partition=2,
    partitions=4,
    model="aa",
    committed=None,
    mark=None,
    stored=None,
    log_start=0,
    log_end=100,
    group_start=0,
    topic_id="now/0",
)


def situation(**changes):
    return replace(BASE, **changes)


def stored(applied, start=3, *, has_states=True):
    return StoredPartition(applied, start, 4, has_states)


def decided(*, on_new_model="refuse", accept_missing_history=False, **changes):
    decision = decide(
        situation(**changes),
        on_new_model=on_new_model,
        accept_missing_history=accept_missing_history,
    )
    return decision.position, decision.start, decision.applied, decision.is_fresh


def refused(error, *texts, **changes):
    with pytest.raises(error) as caught:
        decided(**changes)
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("at", [0, 40])
def test_the_first_run_begins_where_the_group_begins(at):
    assert decided(group_start=at) == (at, at, at, True)


def test_a_first_run_that_died_before_its_first_commit_continues_where_it_started():
    # Also when the log has grown, and a group without commits would begin elsewhere now.
    begun = stored(7, start=7, has_states=False)
    assert decided(stored=begun, group_start=90) == (7, 7, 7, False)


def test_a_group_deleted_under_sequences_that_have_all_ended_is_refused():
    # Their states are gone, but `applied` says that events were stepped.
    ended = stored(50, start=7, has_states=False)
    refused(OffsetsResetError, "up to offset 50", stored=ended)


def test_a_group_deleted_under_its_states_is_refused():
    refused(
        OffsetsResetError,
        "events/2",
        "up to offset 50",
        "the group has no committed offset",
        "Set the group's offset back to 50",
        stored=stored(50),
    )


@pytest.mark.parametrize("mark", [OURS, THEIRS, None])
def test_states_as_far_as_the_commit_continue_for_any_committer(mark):
    # Another model's mark with our states: this model has taken over, and not committed yet.
    assert decided(committed=50, mark=mark, stored=stored(50)) == (50, 3, 50, False)


@pytest.mark.parametrize("mark", [OURS, None])
def test_states_behind_the_commit_are_replayed(mark):
    assert decided(committed=50, mark=mark, stored=stored(20)) == (50, 3, 20, False)


def test_lost_states_are_replayed_from_where_they_began():
    assert decided(committed=50, mark=OURS) == (50, 3, 3, True)


@pytest.mark.parametrize("mark", [OURS, THEIRS, None])
@pytest.mark.parametrize("on_new_model", ["refuse", "zeros", "warm"])
def test_offsets_reset_under_the_states_are_refused_for_any_committer(mark, on_new_model):
    refused(
        OffsetsResetError,
        "up to offset 51",
        "committed offset is 50",
        "stepped twice",
        committed=50,
        mark=mark,
        stored=stored(51),
        on_new_model=on_new_model,
    )


@pytest.mark.parametrize("states", [None, stored(20)])
def test_another_models_commit_is_refused_and_both_ways_out_are_named(states):
    refused(
        OtherModelError,
        "at offset 50",
        "made by model bb",
        "this worker has model aa",
        "--on-new-model zeros",
        "--on-new-model warm",
        committed=50,
        mark=THEIRS,
        stored=states,
    )


@pytest.mark.parametrize("states", [None, stored(20)])
def test_a_new_model_may_begin_at_zeros_at_the_commit(states):
    found = decided(committed=50, mark=THEIRS, stored=states, on_new_model="zeros")
    assert found == (50, 50, 50, True)


def test_a_new_model_may_replay_the_history_that_the_log_holds():
    begun = dict(committed=50, mark=THEIRS, log_start=10, on_new_model="warm")
    assert decided(**begun) == (50, 10, 10, True)
    # After a crash in it, it continues from where it was.
    assert decided(**begun, stored=stored(20, start=10)) == (50, 10, 20, False)


def test_a_new_model_warms_up_with_nothing_when_the_log_holds_nothing():
    found = decided(committed=50, mark=THEIRS, log_start=50, on_new_model="warm")
    assert found == (50, 50, 50, True)


def test_a_commit_without_a_mark_and_without_states_was_set_by_hand():
    assert decided(committed=50) == (50, 50, 50, True)


@pytest.mark.parametrize(
    "changes",
    [
        dict(committed=50, mark=OURS, log_start=4),
        dict(committed=50, mark=OURS, stored=stored(20), log_start=21),
        dict(committed=50, mark=OURS, stored=stored(50), log_start=51),
    ],
)
def test_a_replay_whose_events_are_gone_is_refused_unless_accepted(changes):
    refused(HistoryMissingError, "no longer in the log", "--accept-missing-history", **changes)
    assert decided(**changes, accept_missing_history=True)[0] == max(50, changes["log_start"])


def test_missing_history_names_the_offsets():
    refused(
        HistoryMissingError,
        "offsets 20 to 29",
        "from offset 30",
        committed=50,
        mark=OURS,
        stored=stored(20),
        log_start=30,
    )


def test_accepted_missing_history_begins_lost_states_with_what_is_there():
    found = decided(committed=50, mark=OURS, log_start=10, accept_missing_history=True)
    assert found == (50, 10, 10, True)
    kept = decided(
        committed=50, mark=OURS, stored=stored(20), log_start=30, accept_missing_history=True
    )
    assert kept == (50, 3, 20, False)


def test_an_event_of_a_history_that_only_just_is_there_is_enough():
    assert decided(committed=50, mark=OURS, stored=stored(20), log_start=20)[2] == 20


def test_a_log_that_ends_before_the_commit_has_lost_records():
    refused(
        OffsetsResetError,
        "position is 101",
        "ends at 100",
        committed=101,
        mark=OURS,
        stored=stored(101),
    )
    assert decided(committed=100, mark=OURS, stored=stored(100))[0] == 100


@pytest.mark.parametrize(
    "changes",
    [
        dict(committed=50, mark=replace(OURS, partitions=3)),
        dict(committed=50, mark=replace(THEIRS, partitions=3), on_new_model="zeros"),
        dict(stored=StoredPartition(0, 0, 3, has_states=False)),
        dict(committed=50, mark=THEIRS, stored=StoredPartition(50, 3, 3, has_states=True)),
        dict(committed=50, stored=StoredPartition(50, 3, 3, has_states=True)),
    ],
)
def test_another_number_of_partitions_is_refused(changes):
    refused(PartitionsChangedError, "has 4 partitions", "had 3", "new topic", **changes)


@pytest.mark.parametrize("mark", [OURS, replace(OURS, topic=None)])
def test_a_mark_comes_back_from_the_commits_metadata(mark):
    assert CommitMark.from_text(mark.to_text()) == mark


def test_a_mark_of_before_marks_had_the_topics_id_is_read():
    mark = CommitMark.from_text("livestep/1 model=aa partitions=4 start=3")
    assert mark == replace(OURS, topic=None)
    assert decided(committed=50, mark=mark, stored=stored(50)) == (50, 3, 50, False)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "by hand",
        "livestep/2 model=aa partitions=4 start=3",
        "livestep/1 model=aa partitions=4 start=3 topic=a",
        "livestep/2 model=aa partitions=4 start=3 topic=",
        "livestep/3 model=aa partitions=4 start=3 topic=a",
        OURS.to_text() + " more",
    ],
)
def test_other_metadata_is_not_a_mark(text):
    assert CommitMark.from_text(text) is None


@pytest.mark.parametrize("committed", [5, 50, 500])
@pytest.mark.parametrize("on_new_model", ["refuse", "zeros", "warm"])
@pytest.mark.parametrize("model", ["aa", "bb"])
def test_a_commit_against_a_deleted_topic_is_none_and_the_new_one_begins_at_its_first_event(
    committed, on_new_model, model
):
    # Also where the group begins at the end, or the deleted topic had other partitions.
    mark = replace(GONE, model=model, partitions=7)
    found = decided(
        committed=committed, mark=mark, log_start=2, group_start=100, on_new_model=on_new_model
    )
    assert found == (2, 2, 2, True)
    # And a crash before the first commit against the new topic continues where it began.
    begun = stored(2, start=2, has_states=False)
    assert decided(committed=committed, mark=mark, stored=begun) == (2, 2, 2, False)


def test_a_commit_for_a_deleted_topic_is_reported():
    decision = decide(situation(committed=5, mark=GONE))
    assert "the commit at 5 was made against a topic that has been deleted" in decision.reason
    assert decision.is_first_run


def test_states_of_the_new_topic_under_a_commit_against_the_deleted_one_are_refused():
    refused(OffsetsResetError, "up to offset 20", committed=50, mark=GONE, stored=stored(20))


UNREADABLE = DamagedPartition(b"x", has_states=True, detail="field `applied` is b'x'")

#: Kinds of damage, with a commit of ours at 50.
DAMAGES = {
    "a field": dict(stored=UNREADABLE),
    "a state": dict(stored=stored(50), damaged_state="the state of key b'a'"),
    "a state behind the commit": dict(stored=stored(20), damaged_state="the state of key b'a'"),
    "a later start": dict(stored=stored(50, start=4)),
    "an earlier start": dict(stored=stored(50, start=2)),
    "another number of partitions": dict(stored=StoredPartition(50, 3, 5, has_states=True)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
class TestDamagedStates:
    """They start over where the commit says that they begin, if the log reaches back."""

    def test_they_start_over_where_the_commit_says(self, damage):
        assert decided(committed=50, mark=OURS, **damage) == (50, 3, 3, True)
        assert decide(situation(committed=50, mark=OURS, **damage)).damage

    def test_without_a_history_it_is_refused_unless_accepted(self, damage):
        if damage["stored"] in (stored(50, 4), stored(50, 2)):
            # The states themselves are right: the commit counts, and nothing has to be replayed.
            assert decided(committed=50, mark=OURS, log_start=10, **damage) == (50, 3, 50, False)
            return
        gone = dict(committed=50, mark=OURS, log_start=10, **damage)
        refused(HistoryMissingError, "events/2", "offsets 3 to 9", "damaged: ", **gone)
        assert decided(**gone, accept_missing_history=True) == (50, 10, 10, True)


def test_the_message_names_the_damaged_state_when_the_history_is_gone():
    damage = dict(stored=stored(50), damaged_state="the state of key b'a': cut")
    refused(
        HistoryMissingError,
        "the state of key b'a': cut",
        committed=50,
        mark=OURS,
        log_start=9,
        **damage,
    )


def test_damaged_states_under_another_models_commit_are_as_none_there():
    theirs = dict(committed=50, mark=THEIRS, stored=UNREADABLE)
    refused(OtherModelError, **theirs)
    assert decided(**theirs, on_new_model="zeros") == (50, 50, 50, True)
    assert decided(**theirs, on_new_model="warm", log_start=10) == (50, 10, 10, True)


def test_damaged_states_that_have_already_taken_over_start_over_where_they_began():
    damage = dict(stored=stored(50, start=30), damaged_state="the state of key b'a'")
    assert decided(committed=50, mark=THEIRS, **damage) == (50, 30, 30, True)


def test_damaged_states_under_a_commit_set_by_hand_start_over_if_their_start_is_known():
    damage = dict(stored=stored(20), damaged_state="the state of key b'a'")
    assert decided(committed=50, **damage) == (50, 3, 3, True)
    refused(StateError, "field `applied`", "set by hand", "Delete", committed=50, stored=UNREADABLE)


def test_damaged_states_without_a_commit_are_refused_unless_there_are_none():
    refused(OffsetsResetError, "it is unknown which events", "no committed", stored=UNREADABLE)
    empty = replace(UNREADABLE, has_states=False)
    assert decided(stored=empty, group_start=7) == (7, 7, 7, True)
    begun = stored(7, start=7, has_states=False)
    assert decided(stored=begun, damaged_state="a state") == (7, 7, 7, True)


def test_damaged_states_ahead_of_the_commit_are_refused_as_any():
    ahead = dict(stored=stored(51), damaged_state="the state of key b'a'")
    refused(OffsetsResetError, "stepped twice", committed=50, mark=OURS, **ahead)


class TestAModelWithoutStates:
    """It has nothing to repair: it continues where the log says."""

    def test_the_first_run_begins_where_the_group_begins(self):
        assert decided(is_stateless=True, group_start=40) == (40, 40, 40, False)

    @pytest.mark.parametrize("mark", [OURS, THEIRS, None])
    def test_it_continues_at_the_commit_for_any_committer(self, mark):
        assert decided(is_stateless=True, committed=50, mark=mark) == (50, 50, 50, False)

    def test_its_topic_may_get_more_partitions(self):
        grown = replace(OURS, partitions=2)
        assert decided(is_stateless=True, committed=50, mark=grown) == (50, 50, 50, False)

    def test_a_commit_against_a_deleted_topic_is_none(self):
        found = decided(is_stateless=True, committed=50, mark=GONE, group_start=100)
        assert found == (0, 0, 0, False)

    def test_events_that_were_deleted_before_their_prediction_are_not_passed_over(self):
        refused(HistoryMissingError, is_stateless=True, committed=50, log_start=60)
        gone = decided(is_stateless=True, committed=50, log_start=60, accept_missing_history=True)
        assert gone == (60, 60, 60, False)
