"""From the bytes of a connection to statements, without a server or a socket."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest

from checks.kit.wire import Statement
from checks.kit.wire.recording import TrafficLog
from checks.kit.wire.tracker import StatementTracker
from checks.self_test.wire_client import message, parse, query


def bind(name: str = "", parameters: int = 0) -> bytes:
    values = struct.pack("!i", -1) * parameters  # NULLs
    return message("B", b"\0" + name.encode() + b"\0" + struct.pack("!hh", 0, parameters) + values + b"\0\0")


def extended(text: str) -> bytes:
    """A statement by the extended protocol, without the Sync."""
    return parse(text) + bind() + EXECUTE


def done(tag: str) -> bytes:
    return message("C", tag.encode() + b"\0")


def executed(tag: str) -> bytes:
    """What the server says to `extended`."""
    return message("1") + message("2") + done(tag)


def ready(status: str = "I") -> bytes:
    return message("Z", status.encode())


def error(sqlstate: str) -> bytes:
    return message("E", b"SERROR\0C" + sqlstate.encode() + b"\0Mno\0\0")


EXECUTE = message("E", b"\0\0\0\0\0")
SYNC = message("S")
ROW = message("D", struct.pack("!hi", 1, 2) + b"42")


class Talk:
    """A tracker that has heard `status` from its server, and what it makes of the rest."""

    def __init__(self, status: str = "I") -> None:
        self.log = TrafficLog()
        self.tracker = StatementTracker(1, self.log)
        self.server(ready(status))

    def client(self, *pieces: bytes) -> None:
        for piece in pieces:
            for _ in self.tracker.read_client(piece):
                pass

    def server(self, *pieces: bytes) -> bool:
        ready = False
        for piece in pieces:
            ready |= self.tracker.read_server(piece)
        return ready

    @property
    def statements(self) -> list[Statement]:
        return self.log.statements


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_the_pieces_in_which_bytes_arrive_make_no_difference(size: int) -> None:
    talk = Talk()
    sent = parse("SELECT n FROM t WHERE n > $1", "one") + bind("one", parameters=1) + EXECUTE + SYNC
    back = message("1") + message("2") + ROW * 3 + done("SELECT 3") + ready()
    talk.client(*(sent[at : at + size] for at in range(0, len(sent), size)))
    assert talk.tracker.busy
    talk.server(*(back[at : at + size] for at in range(0, len(back), size)))
    [statement] = talk.statements
    assert (statement.text, statement.parameters) == ("SELECT n FROM t WHERE n > $1", 1)
    assert (statement.tag, statement.rows, statement.error) == ("SELECT 3", 3, None)
    assert statement.finished is not None
    assert not talk.tracker.busy
    assert talk.log.totals.round_trips == 1


@pytest.mark.parametrize("size", [1, 4, 9, 50, 10_000])
def test_a_row_has_its_whole_size_in_however_many_pieces_it_arrives(size: int) -> None:
    talk = Talk()
    talk.client(query("SELECT title FROM books"))
    rows = [message("D", struct.pack("!hi", 1, length) + b"x" * length) for length in (3, 200, 0, 40)]
    whole = b"".join(rows) + done("SELECT 4") + ready()
    for at in range(0, len(whole), size):
        talk.server(whole[at : at + size])
    [statement] = talk.statements
    assert (statement.rows, statement.size) == (4, sum(map(len, rows)))


def test_a_prepared_statement_keeps_its_text_until_it_is_closed() -> None:
    talk = Talk()
    talk.client(parse("SELECT 1", "one") + bind("one") + EXECUTE + SYNC, bind("one") + EXECUTE + SYNC)
    talk.client(message("C", b"Sone\0") + bind("one") + EXECUTE + SYNC)
    assert [statement.text for statement in talk.statements] == ["SELECT 1", "SELECT 1", ""]


def test_a_cursor_goes_on_with_its_statement() -> None:
    talk = Talk()
    talk.client(extended("SELECT n FROM t") + SYNC, EXECUTE + SYNC, extended("SELECT n FROM t") + SYNC)
    talk.client(query("DECLARE c CURSOR FOR SELECT n FROM t"), query("FETCH FORWARD 10 FROM c"))
    assert [statement.continues for statement in talk.statements] == [False, True, False, False, True]


def test_a_simple_query_ends_with_ready_and_collects_its_tags() -> None:
    talk = Talk()
    talk.client(query("UPDATE t SET n = 1; DELETE FROM t"))
    assert not talk.server(done("UPDATE 2"), done("DELETE 2"))
    [statement] = talk.statements
    assert statement.finished is None
    assert talk.server(ready())
    assert (statement.tag, statement.finished is None) == ("UPDATE 2; DELETE 2", False)


def test_after_an_error_the_rest_of_the_pipeline_is_skipped_up_to_the_sync() -> None:
    talk = Talk()
    talk.client(extended("SELECT 1/0") + extended("SELECT 2") + SYNC + extended("SELECT 3") + SYNC)
    talk.server(message("1") + message("2") + error("22012") + ready() + executed("SELECT 1") + ready())
    failed, skipped, other = talk.statements
    assert failed.error is not None
    assert failed.error.sqlstate == "22012"
    assert (skipped.skipped, skipped.error, skipped.tag) == (True, None, "")
    assert (other.skipped, other.tag) == (False, "SELECT 1")


def test_what_is_sent_after_an_error_is_skipped_as_well() -> None:
    talk = Talk()
    talk.client(extended("SELECT 1/0") + extended("BEGIN"))
    talk.server(message("1") + message("2") + error("22012"))
    talk.client(
        extended("DELETE FROM t"), query("DELETE FROM t"), extended("COMMIT") + SYNC, extended("SELECT 3") + SYNC
    )
    talk.server(ready() + executed("SELECT 1") + ready())
    failed, *skipped, other = talk.statements
    assert failed.error is not None
    assert [(one.skipped, one.commits, one.finished is None) for one in skipped] == [(True, False, False)] * 4
    assert (other.tag, other.skipped, other.in_transaction) == ("SELECT 1", False, True)
    assert not talk.tracker.busy


@pytest.mark.parametrize("step", ["Parse", "Bind"])
@pytest.mark.parametrize("together", [True, False])
def test_a_statement_whose_parse_or_bind_fails_is_recorded_once(step: str, together: bool) -> None:
    talk = Talk()
    before = message("1") if step == "Bind" else b""
    pieces = [parse("SELECT 1, 'x'::int"), bind(), EXECUTE, extended("SELECT 2"), SYNC]
    sent = 5 if together else 1 if step == "Parse" else 2
    talk.client(*pieces[:sent])
    talk.server(before + error("22P02"))
    talk.client(*pieces[sent:])
    talk.server(ready())
    failed, skipped = talk.statements
    assert failed.error is not None
    assert (failed.error.sqlstate, failed.skipped) == ("22P02", False)
    assert (skipped.error, skipped.skipped) == (None, True)


def test_the_error_of_a_commit_at_the_sync_is_that_of_the_statement_before() -> None:
    talk = Talk()
    talk.client(extended("INSERT INTO t VALUES (1)") + SYNC + extended("SELECT 2") + SYNC)
    talk.server(executed("INSERT 0 1") + error("23503") + ready() + executed("SELECT 1") + ready())
    insert, select = talk.statements
    assert insert.error is not None
    assert insert.error.sqlstate == "23503"
    assert (select.error, select.tag) == (None, "SELECT 1")


def test_a_failed_step_without_an_execution_leaves_the_others_alone() -> None:
    talk = Talk()
    talk.client(extended("SELECT 1") + message("D", b"Smissing\0") + SYNC + query("SELECT 2"))
    talk.server(executed("SELECT 1") + error("26000") + ready() + message("T") + done("SELECT 1") + ready())
    assert [(one.tag, one.error, one.skipped) for one in talk.statements] == [("SELECT 1", None, False)] * 2


COPY_DATA, COPY_END = message("d", b"1\n"), message("c")


@pytest.mark.parametrize("pieces", [(0, 3, 5), (0, 1, 2, 3, 4, 5), (0, 5)])
@pytest.mark.parametrize("fails", [True, False])
def test_the_server_ignores_a_sync_within_a_copy(pieces: tuple[int, ...], fails: bool) -> None:
    """libpq sends one after Execute, before it knows that the statement is a COPY; PostgreSQL responds to the second.

    The server says that it takes data after the first of the pieces.
    """
    talk = Talk()
    sent = [extended("COPY t FROM STDIN"), SYNC, COPY_DATA, COPY_END, SYNC]
    groups = [sent[start:end] for start, end in pairwise(pieces)]
    talk.client(*groups[0])
    talk.server(message("1") + message("2") + message("G"))
    for group in groups[1:]:
        talk.client(*group)
    talk.server((error("22P02") if fails else done("COPY 1")) + ready())
    assert not talk.tracker.busy
    talk.client(extended("SELECT 2") + SYNC)
    talk.server(executed("SELECT 1") + ready())
    copy, select = talk.statements
    assert (copy.tag, copy.error is not None, copy.skipped) == ("" if fails else "COPY 1", fails, False)
    assert (select.tag, select.error, select.skipped) == ("SELECT 1", None, False)


def test_a_copy_that_fails_before_its_data_has_ended_skips_up_to_the_sync_after_it() -> None:
    talk = Talk()
    talk.client(extended("COPY t FROM STDIN") + SYNC)
    talk.server(message("1") + message("2") + message("G"))
    talk.client(COPY_DATA)
    talk.server(error("22P02"))
    talk.client(COPY_DATA, COPY_END, SYNC)
    talk.server(ready())
    assert not talk.tracker.busy
    talk.client(query("SELECT 2"))
    talk.server(done("SELECT 1") + ready())
    assert [(one.tag, one.error is None) for one in talk.statements] == [("", False), ("SELECT 1", True)]


def test_data_for_no_copy_is_ignored() -> None:
    talk = Talk()
    talk.client(extended("SELECT 1") + COPY_DATA + COPY_END + extended("SELECT 2") + SYNC, COPY_END, query("SELECT 3"))
    talk.server(executed("SELECT 1") + executed("SELECT 2") + ready() + done("SELECT 1") + ready())
    assert [one.tag for one in talk.statements] == ["SELECT 1", "SELECT 2", "SELECT 1"]
    assert not talk.tracker.busy


def test_a_simple_query_may_copy_twice() -> None:
    talk = Talk()
    talk.client(query("COPY t FROM STDIN; COPY t FROM STDIN") + COPY_DATA + COPY_END)
    talk.server(message("G") + done("COPY 1") + message("G"))
    talk.client(COPY_DATA + COPY_END)
    talk.server(done("COPY 1") + ready())
    [statement] = talk.statements
    assert statement.tag == "COPY 1; COPY 1"
    assert not talk.tracker.busy


def test_a_statement_refused_when_prepared_is_recorded() -> None:
    talk = Talk()
    talk.client(parse("SELECT * FROM missing") + message("H"))
    talk.server(error("42P01"))
    [statement] = talk.statements
    assert statement.error is not None
    assert (statement.text, statement.error.sqlstate) == ("SELECT * FROM missing", "42P01")


@pytest.mark.parametrize(
    ("last", "tag", "outcome"),
    [("COMMIT", "COMMIT", "commit"), ("ROLLBACK", "ROLLBACK", "rollback"), ("COMMIT", "ROLLBACK", "rollback")],
)
def test_how_a_transaction_ends(last: str, tag: str, outcome: str) -> None:
    """The third is a COMMIT of a transaction that has failed."""
    talk = Talk()
    talk.client(query("BEGIN"))
    talk.server(done("BEGIN") + ready("T"))
    [transaction] = talk.log.transactions
    assert (talk.tracker.status, transaction.outcome) == ("T", "open")
    talk.client(query(last))
    talk.server(done(tag) + ready("I"))
    assert (transaction.outcome, transaction.ended is None) == (outcome, False)


def test_a_transaction_ends_as_it_did_whatever_was_sent_meanwhile() -> None:
    talk = Talk()
    talk.client(query("BEGIN"))
    talk.server(done("BEGIN") + ready("T"))
    talk.client(extended("COMMIT") + SYNC + extended("SELECT 1") + SYNC)
    talk.server(executed("COMMIT") + ready("I") + executed("SELECT 1") + ready("I"))
    assert [transaction.outcome for transaction in talk.log.transactions] == ["commit"]


def test_a_lost_connection_ends_its_transaction() -> None:
    talk = Talk("T")
    talk.tracker.connection_lost()
    assert [transaction.outcome for transaction in talk.log.transactions] == ["lost"]


@pytest.mark.parametrize(
    ("texts", "commits"),
    [
        (["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"], [False, False, True]),
        (["BEGIN", "SELECT 1", "COMMIT"], [False, False, False]),
        (["BEGIN", "INSERT INTO t VALUES (1)", "ROLLBACK"], [False, False, False]),
        (["BEGIN", "DELETE FROM t", "ROLLBACK TO SAVEPOINT s", "COMMIT"], [False, False, False, True]),
        (["INSERT INTO t VALUES (1)", "SELECT 1"], [True, False]),
    ],
)
def test_what_makes_work_durable_is_known_before_the_server_says_anything(
    texts: list[str], commits: list[bool]
) -> None:
    talk = Talk()
    talk.client(b"".join(extended(text) for text in texts) + SYNC)
    assert [statement.commits for statement in talk.statements] == commits


def test_the_servers_status_corrects_what_was_foretold() -> None:
    talk = Talk()
    talk.client(query("SELECT begins_nothing()"))
    talk.server(done("SELECT 1") + ready("T"))  # it did begin a transaction, as a procedure or a pooler may
    talk.client(query("INSERT INTO t VALUES (1)"))
    assert [statement.in_transaction for statement in talk.statements] == [False, True]


def test_a_relay_may_stop_at_a_statement_and_go_on_later() -> None:
    talk = Talk()
    first, second = extended("SELECT 1"), extended("SELECT 2") + SYNC
    data = first + second
    for start, end, statement, waits in talk.tracker.read_client(data):
        assert data[start:end] == EXECUTE
        assert statement is not None
        assert (statement.text, waits) == ("SELECT 1", False)
        break
    assert end == len(first)
    assert [statement.text for statement in talk.statements] == ["SELECT 1"]
    points = list(talk.tracker.read_client(data[end:]))
    assert [(statement and statement.text, waits) for _, _, statement, waits in points] == [
        ("SELECT 2", False),
        (None, True),
    ]


def test_terminate_and_bytes_that_are_no_protocol() -> None:
    talk = Talk()
    talk.client(message("X"))
    assert talk.tracker.terminated
    talk.client(b"Q\xff\xff\xff\xff", query("SELECT 1"))
    talk.server(b"C\x80\0\0\0", done("SELECT 1"))
    assert talk.statements == []


@pytest.mark.parametrize("seed", range(5))
def test_messages_that_make_no_sense_raise_nothing(seed: int) -> None:
    """Of every kind, in any order from either side, with any body."""
    chance = random.Random(seed)
    talk = Talk()
    for _ in range(2000):
        kind = chr(chance.choice(b"QPBDECSHXFcfdpZCDEGHITWn123stNA"))
        body = chance.choice([b"", b"\0", b"S\0", b"P\0", b"\0\0\0\0\0", b"SELECT 1\0", chance.randbytes(20)])
        (talk.client if chance.random() < 0.5 else talk.server)(message(kind, body))
    assert all(one.finished is None or one.finished >= one.started for one in talk.statements)
