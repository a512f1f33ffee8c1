"""Sending: a stand-in for Kaggle's servers that its official client talks to, and a host in memory for the rest."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from toys import make_toy, train_toy

from pipeline import api, commands
from pipeline.base.errors import ConfigError, DataError, MismatchError, StopRequestedError
from pipeline.base.files import sha256_file
from pipeline.records.config import load_task, validate
from pipeline.records.task import Host
from pipeline.stages.board import kaggle_host, sendings
from pipeline.stages.board import send as send_stage
from pipeline.stages.board.kaggle_host import HostError, KaggleHost, Seen
from pipeline.stages.board.ledger import amend, last_sent, with_scores
from pipeline.stages.board.lines import list_submissions
from pipeline.stages.board.send import Patience, refresh, send_file

TOKEN = "KGAT_0123456789abcdef"
TODAY = "2026-03-04T22:30:00+00:00"


@pytest.fixture(autouse=True)
def _at_one_time(monkeypatch):
    monkeypatch.setattr(sendings, "now", lambda: TODAY)


def add_submission(root, stem, text=None, task="t", **record):
    file = root / "submissions" / task / f"{stem}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or f"id,label\n1,{stem}\n")
    facts = {"file": file.name, "run": "r", "sha256": sha256_file(file), "cv": 0.9}
    file.with_suffix(".json").write_text(json.dumps({**facts, **record}))
    return file


def record_of(file):
    return json.loads(file.with_suffix(".json").read_text())


class MemoryHost:
    """A host that scores a file when it has been asked about it `delay` times."""

    def __init__(self, delay=1, public=0.8, private=None, error=""):
        self.delay, self.scores, self.error = delay, (public, private), error
        self.taken, self.seen, self.asked, self.fault = [], [], 0, None

    def submit(self, competition, file, message):
        fault, self.fault = self.fault, None
        if isinstance(fault, HostError) and fault.is_refused:
            raise fault
        self.taken.append((competition, file.read_bytes(), message))
        ref = 100 + len(self.taken)
        self.seen.insert(0, Seen(ref, message, TODAY, "pending", None, None))
        if fault is not None:
            raise fault
        return ref

    def submissions(self, competition):
        self.asked += 1
        if self.asked > self.delay and self.seen:
            status = "error" if self.error else "complete"
            scores = (None, None) if self.error else self.scores
            self.seen = [
                replace(one, status=status, public=scores[0], private=scores[1], error=self.error) for one in self.seen
            ]
        return list(self.seen)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.time, self.pauses = 0.0, []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.time += seconds

    def patience(self, limit_sec=600.0):
        return Patience(limit_sec, sleep=self.sleep, clock=lambda: self.time)


def send(root, file, host, said=None, **more):
    more = {"competition": "digits", "patience": Clock().patience()} | more
    return send_file(root, str(file), host, (said if said is not None else []).append, **more)


# -- a host in memory --------------------------------------------------------------------------------------------------


def test_a_file_is_sent_and_its_score_comes_into_the_record(tmp_path):
    file, host, said, clock = add_submission(tmp_path, "net"), MemoryHost(delay=4, private=0.7), [], Clock()
    sent = send(tmp_path, file, host, said, patience=clock.patience())
    digest = sha256_file(file)
    message = f"net, CV 0.90000 [podium {digest[:12]}]"
    assert host.taken == [("digits", file.read_bytes(), message)]
    assert (sent.ref, sent.is_new, sent.public, sent.private) == (101, True, 0.8, 0.7)
    entry = {
        "time": TODAY,
        "file": "net.csv",
        "sha256": digest,
        "message": message,
        "competition": "digits",
        "ref": 101,
    }
    assert record_of(file)["sent"] == [entry]
    assert record_of(file)["lb"] == {"public": 0.8, "private": 0.7}
    assert record_of(file)["cv"] == 0.9
    assert said[0] == "sent net.csv to digits as number 101"
    assert said[1:3] == ["waiting for the score: 0:00", "waiting for the score: 0:02"]
    assert said[-1] == "net.csv: public 0.8, private 0.7"
    line = list_submissions(tmp_path)[0]
    assert (line.sent, line.public, line.note) == (TODAY, 0.8, "")


def test_pauses_between_questions_grow_and_end(tmp_path):
    file, clock, said = add_submission(tmp_path, "net"), Clock(), []
    sent = send(tmp_path, file, MemoryHost(delay=10**9), said, patience=clock.patience(200.0))
    assert clock.pauses[:3] == [2.0, 3.0, 4.5]
    assert max(clock.pauses) == 30.0
    assert 170 < clock.time <= 200
    assert (sent.ref, sent.public) == (101, None)
    assert said[-1] == "no score yet; `podium board --refresh` fetches it"
    assert "lb" not in record_of(file)


def test_the_same_file_is_not_sent_twice_but_its_score_is_fetched(tmp_path):
    file, host, said = add_submission(tmp_path, "net"), MemoryHost(delay=3), []
    send(tmp_path, file, host, patience=None)
    assert "lb" not in record_of(file)
    sent = send(tmp_path, file, host, said)
    assert len(host.taken) == 1
    assert (sent.is_new, sent.public) == (False, 0.8)
    assert said[0] == (
        f"net.csv was sent before, at {TODAY} as number 101; it is not sent again (--again sends it once more)"
    )
    assert len(record_of(file)["sent"]) == 1
    assert record_of(file)["lb"] == {"public": 0.8}


def test_the_same_bytes_under_another_name_are_not_sent_twice(tmp_path):
    host = MemoryHost()
    send(tmp_path, add_submission(tmp_path, "first", text="id,label\n1,2\n"), host)
    second = add_submission(tmp_path, "second", text="id,label\n1,2\n")
    assert not send(tmp_path, second, host).is_new
    assert len(host.taken) == 1
    assert record_of(second)["lb"] == {"public": 0.8}
    assert last_sent(record_of(second))["file"] == "first.csv"


def test_bytes_that_another_person_sent_are_known_by_their_mark(tmp_path):
    file, host, said = add_submission(tmp_path, "net"), MemoryHost(), []
    host.seen = [Seen(7, f"mine [podium {sha256_file(file)[:12]}]", "2026-03-01T10:00:00+00:00", "pending", None, None)]
    assert send(tmp_path, file, host, said).ref == 7
    assert host.taken == []
    assert "as number 7" in said[0]
    assert record_of(file)["sent"][0]["time"] == "2026-03-01T10:00:00+00:00"
    assert record_of(file)["lb"] == {"public": 0.8}


def test_again_sends_once_more_and_both_are_kept(tmp_path, monkeypatch):
    file, host = add_submission(tmp_path, "net"), MemoryHost()
    send(tmp_path, file, host)
    monkeypatch.setattr(sendings, "now", lambda: TODAY.replace("22:30", "22:40"))
    assert send(tmp_path, file, host, again=True, message="why not").is_new
    assert [entry["ref"] for entry in record_of(file)["sent"]] == [101, 102]
    assert host.taken[1][2].startswith("why not [podium ")


def test_a_file_that_is_gone_changed_or_unknown_is_not_sent(tmp_path):
    file, host = add_submission(tmp_path, "net"), MemoryHost()
    with pytest.raises(DataError, match=r"nett: no such submission .*Did you mean 'net'"):
        send(tmp_path, "nett", host)
    file.write_text("other")
    with pytest.raises(DataError, match=r"net\.csv: has changed since it was checked; .* `podium submit RUN --over"):
        send(tmp_path, file, host)
    file.unlink()
    with pytest.raises(DataError, match=r"its file 'net\.csv' is gone"):
        send(tmp_path, file, host)
    assert host.taken == []
    assert "sent" not in record_of(file)


def test_the_daily_limit_counts_all_files_of_the_task_and_day_once(tmp_path):
    host, day = MemoryHost(delay=10**9), "2026-03-04"
    entry = {"message": "", "competition": "digits", "ref": 1}
    add_submission(tmp_path, "a", sent=[{**entry, "time": f"{day}T00:00:00+00:00", "sha256": "a"}])
    add_submission(tmp_path, "twin", sent=[{**entry, "time": f"{day}T00:00:00+00:00", "sha256": "a"}])
    add_submission(tmp_path, "old", sent=[{**entry, "time": "2026-03-03T23:59:59+00:00", "sha256": "b"}])
    add_submission(
        tmp_path, "else", sent=[{**entry, "time": f"{day}T01:00:00+00:00", "sha256": "c", "competition": "x"}]
    )
    add_submission(tmp_path, "bad", sent=[{**entry, "time": f"{day}T01:00:00+00:00", "sha256": "d", "error": "no ids"}])
    add_run(tmp_path, {"competition": "digits", "daily_limit": 2})
    send(tmp_path, add_submission(tmp_path, "second"), host, patience=None, competition=None)
    third = add_submission(tmp_path, "third")
    with pytest.raises(
        DataError, match=r"digits: 2 of 2 submissions of 2026-03-04 \(UTC\) are used; .* in 1:30:00\. Not"
    ):
        send(tmp_path, third, host, again=True, competition="digits")
    assert len(host.taken) == 1
    assert "sent" not in record_of(third)


def test_the_daily_limit_counts_what_others_sent(tmp_path):
    add_run(tmp_path, {"competition": "digits", "daily_limit": 1})
    file, host = add_submission(tmp_path, "net"), MemoryHost(delay=10**9)
    host.seen = [Seen(1, "by hand", "2026-03-03T23:59:00+00:00", "complete", 0.1, None)]
    host.seen += [Seen(2, "refused", "2026-03-04T01:00:00+00:00", "error", None, None)]
    other = MemoryHost(delay=10**9)
    other.seen = [Seen(3, "by hand", "2026-03-04T01:00:00+00:00", "complete", 0.1, None)]
    with pytest.raises(DataError, match="1 of 1 submissions"):
        send(tmp_path, file, other, competition=None)
    assert send(tmp_path, file, host, patience=None, competition=None).is_new


def add_run(root, host):
    folder = root / "runs" / "t" / "r"
    folder.mkdir(parents=True)
    source = {"table": "train.csv", "files": ["{id}.png"]}
    task = {
        "name": "t",
        "data": "d",
        "kind": "binary",
        "target": ["y"],
        "metric": "roc_auc",
        "train": source,
        "host": host,
    }
    (folder / "run.json").write_text(json.dumps({"task": task}))


def test_where_to_is_told_or_in_the_task_or_as_last_time(tmp_path):
    host = MemoryHost()
    file = add_submission(tmp_path, "net")
    with pytest.raises(ConfigError, match=r"t: no competition is known; say --competition NAME"):
        send(tmp_path, file, host, competition=None)
    send(tmp_path, file, host, competition="told")
    send(tmp_path, add_submission(tmp_path, "other"), host, competition=None)
    add_run(tmp_path, {"competition": "in-task"})
    send(tmp_path, add_submission(tmp_path, "third"), host, competition=None)
    assert [taken[0] for taken in host.taken] == ["told", "told", "in-task"]


def test_the_host_of_a_task_is_checked():
    assert validate(Host, {"competition": "digit-recognizer", "daily_limit": 5}, "f").name == "kaggle"
    with pytest.raises(ConfigError, match='name: "zindi" is unknown'):
        validate(Host, {"name": "zindi", "competition": "x"}, "f")
    with pytest.raises(ConfigError, match="competition"):
        validate(Host, {"competition": "https://www.kaggle.com/c/x"}, "f")
    with pytest.raises(ConfigError, match="daily_limit"):
        validate(Host, {"competition": "x", "daily_limit": 0}, "f")


def test_a_refusal_leaves_no_entry_so_that_the_file_may_be_sent(tmp_path):
    file, host = add_submission(tmp_path, "net"), MemoryHost()
    host.fault = HostError("kaggle: accept the rules", is_refused=True)
    with pytest.raises(HostError, match="accept the rules"):
        send(tmp_path, file, host)
    assert record_of(file)["sent"] == []
    assert send(tmp_path, file, host).is_new


@pytest.mark.parametrize(
    ("fault", "raised"),
    [(HostError("kaggle: no network", is_refused=False), HostError), (KeyboardInterrupt(), StopRequestedError)],
    ids=["network", "interrupt"],
)
def test_a_file_that_may_have_arrived_is_looked_for_and_not_sent_again(tmp_path, fault, raised):
    file, host = add_submission(tmp_path, "net"), MemoryHost()
    host.fault = fault
    with pytest.raises(raised, match="arrived is not known"):
        send(tmp_path, file, host)
    assert record_of(file)["sent"][0]["ref"] is None
    assert list_submissions(tmp_path)[0].note == "whether it arrived is not known"
    sent = send(tmp_path, file, host)
    assert (sent.ref, sent.is_new, sent.public, len(host.taken)) == (101, False, 0.8, 1)
    assert [entry["ref"] for entry in record_of(file)["sent"]] == [101]


def test_ctrl_c_while_waiting_keeps_what_was_sent(tmp_path):
    file, host = add_submission(tmp_path, "net"), MemoryHost(delay=10**9)

    def interrupt(_seconds):
        raise KeyboardInterrupt

    with pytest.raises(StopRequestedError, match=r"sent \(at .* as number 101\), .*`podium board --refresh`") as error:
        send(tmp_path, file, host, patience=Patience(sleep=interrupt))
    assert error.value.exit_code == 130
    host.delay = 0
    said = []
    assert refresh(tmp_path, host, said.append) == 1
    assert said == ["net: public 0.8"]
    assert record_of(file)["lb"] == {"public": 0.8}
    assert refresh(tmp_path, host, said.append) == 0
    assert len(host.taken) == 1


def test_a_network_that_is_gone_for_a_moment_does_not_end_the_wait(tmp_path):
    file, host, said = add_submission(tmp_path, "net"), MemoryHost(delay=3), []
    ask = host.submissions

    def submissions(competition):
        if host.asked == 2:
            host.asked += 1
            raise HostError("kaggle: no network", is_refused=False)
        return ask(competition)

    host.submissions = submissions
    assert send(tmp_path, file, host, said).public == 0.8
    assert "kaggle: no network" in said


def test_a_file_that_the_host_could_not_score_is_told_with_its_reason(tmp_path):
    file, host = add_submission(tmp_path, "net"), MemoryHost(error="ID 7 is missing")
    with pytest.raises(DataError, match=r"net\.csv: the host could not score it: ID 7 is missing"):
        send(tmp_path, file, host)
    assert record_of(file)["sent"][0]["error"] == "ID 7 is missing"
    assert "lb" not in record_of(file)
    assert list_submissions(tmp_path)[0].note == "the host could not score it: ID 7 is missing"


def test_a_score_that_comes_after_the_file_was_written_anew_is_not_that_of_the_new_one(tmp_path):
    file, host = add_submission(tmp_path, "net"), MemoryHost(delay=2)

    def sleep(_seconds):
        add_submission(tmp_path, "net", text="id,label\n9,9\n", sent=record_of(file)["sent"])

    assert send(tmp_path, file, host, patience=Patience(sleep=sleep)).public == 0.8
    assert record_of(file)["sent"][0]["ref"] == 101
    assert "lb" not in record_of(file)


def test_a_refresh_tells_what_the_host_does_not_show_and_leaves_other_bytes_alone(tmp_path):
    file, host, said = add_submission(tmp_path, "net"), MemoryHost(delay=10**9), []
    send(tmp_path, file, host, patience=None)
    add_submission(tmp_path, "net", text="id,label\n9,9\n", sent=record_of(file)["sent"])
    never = add_submission(tmp_path, "never")
    lost = {"time": TODAY, "file": "l", "sha256": sha256_file(never), "competition": "digits", "ref": None}
    never.with_suffix(".json").write_text(json.dumps({**record_of(never), "sent": [lost]}))
    host.delay = 0
    assert refresh(tmp_path, host, said.append) == 0
    assert said == [f"never: the host does not show what was sent at {TODAY}; whether it arrived is not known"]
    assert "lb" not in record_of(file)


def test_nobodys_entry_is_lost_when_several_write_at_once(tmp_path):
    file = add_submission(tmp_path, "net")
    record = file.with_suffix(".json")

    def counted(old, who, turn):
        return with_scores({**old, f"k{who}-{turn}": 1}, **{f"b{who}": turn})

    def add(number):
        for turn in range(10):
            amend(tmp_path, record, partial(counted, who=number, turn=turn))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(key.startswith("k") for key in record_of(file)) == 40
    assert record_of(file)["lb"] == {f"b{number}": 9 for number in range(4)}
    assert sorted(path.name for path in file.parent.iterdir()) == ["net.csv", "net.json"]


def test_of_two_who_send_at_once_one_sends(tmp_path, monkeypatch):
    """The other comes when the first has looked at the records and the host, and begins to send."""
    file, host, begin = add_submission(tmp_path, "net"), MemoryHost(), sendings.new_entry

    def interrupted_by_another(*facts):
        monkeypatch.setattr(send_stage, "new_entry", begin)
        assert send(tmp_path, file, host).is_new
        return begin(*facts)

    monkeypatch.setattr(send_stage, "new_entry", interrupted_by_another)
    with pytest.raises(DataError, match="another process has just sent this file, or is sending it; nothing was sent"):
        send(tmp_path, file, host)
    assert len(host.taken) == 1
    assert [entry["ref"] for entry in record_of(file)["sent"]] == [101]


def test_a_file_that_is_written_anew_meanwhile_is_not_sent(tmp_path):
    file, host = add_submission(tmp_path, "net"), MemoryHost()

    def submissions(competition):
        add_submission(tmp_path, "net", text="id,label\n9,9\n")
        return []

    host.submissions = submissions
    with pytest.raises(DataError, match="another process has just written the file anew"):
        send(tmp_path, file, host)
    assert host.taken == []


# -- with a run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    config = make_toy(root, n_train=30, n_test=8, net={"folds": {"n_folds": 2}, "train": {"epochs": 1}})
    train_toy(root, config)
    return root


def podium(root, *arguments):
    return commands.run([*arguments, "--root", str(root)])


def test_submit_sends_and_the_board_shows_it(trained, monkeypatch, capsys):
    host = MemoryHost(delay=0)
    monkeypatch.setattr(kaggle_host, "KaggleHost", lambda: host)
    assert podium(trained, "submit", "net", "--send", "--competition", "digits", "--message", "first") == 0
    out = capsys.readouterr().out
    record = trained / "submissions/multiclass/net.json"
    assert f"wrote {record.with_suffix('.csv')}" in out
    assert f"public LB 0.8, written into {record}" in out
    assert host.taken[0][2].startswith("first [podium ")
    assert podium(trained, "submit", "submissions/multiclass/net.csv", "--send", "--no-wait") == 0
    assert podium(trained, "submit", "net", "--send") == 0  # writes the same bytes again
    assert len(host.taken) == 1
    host.scores = (0.8, 0.6)
    host.seen = [replace(one, status="pending") for one in host.seen]
    capsys.readouterr()
    assert podium(trained, "board", "--refresh") == 0
    out = capsys.readouterr().out
    assert "changed records: 1" in out
    assert "0.6" in out
    assert "no line from CV to LB yet: 1 of the 4" in out
    assert "final 1: net.csv" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["net", "--again"], "--again: is read only with --send"),
        (["net", "--no-wait", "--message", "m"], "--message, --no-wait: is read only with --send"),
        (["submissions/multiclass/net.csv"], "a file that was written before can only be sent, with --send"),
        (["net.csv", "--send", "--overwrite"], "can only be sent"),
    ],
)
def test_options_that_nothing_reads_are_refused(trained, arguments, told):
    with pytest.raises(ConfigError, match=told):
        podium(trained, "submit", *arguments)


def test_what_was_sent_stays_known_when_the_file_is_written_anew(trained):
    path = api.submit("net", file="kept", root=trained)
    entries = [{"time": TODAY, "sha256": "other", "competition": "digits", "ref": 1}]
    amend(trained, path.with_suffix(".json"), lambda old: {**old, "sent": entries, "lb": {"public": 0.5}})
    api.submit("net", file="kept", root=trained)
    assert (record_of(path)["sent"], record_of(path)["lb"]) == (entries, {"public": 0.5})
    path.write_text("others' bytes")
    api.submit("net", file="kept", overwrite=True, root=trained)
    assert record_of(path)["sent"] == entries
    assert "lb" not in record_of(path)
    assert record_of(path)["id_column"] == "id"


def test_a_host_that_is_named_later_does_not_hinder_a_run(trained):
    config = trained / "configs/multiclass/net.yaml"
    task = config.with_name("task.yaml")
    task.write_text(task.read_text() + "host: {competition: digits, daily_limit: 5}\n")
    train_toy(trained, config)
    assert load_task(task).host == Host(competition="digits", daily_limit=5)
    task.write_text(task.read_text().replace("name: multiclass", "name: multiclass\nfirst_id: 0\nexclude: [tr_000]"))
    with pytest.raises(MismatchError, match="exclude"):
        train_toy(trained, config)


# -- the official client against a stand-in of the host ----------------------------------------------------------------


class Kaggle(ThreadingHTTPServer):
    """The few calls that the client makes, as its proxy: `http://localhost/api/v1/<service>/<call>`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.calls, self.faults, self.uploads, self.submissions, self.asked, self.headers = [], {}, [], [], 0, []

    def answer(self, call, body):
        if call == "IntrospectToken":
            return {"active": body["token"] == TOKEN, "username": "ann"}
        if call == "StartSubmissionUpload":
            return {"token": "blob-1", "createUrl": "http://localhost/upload/1"}
        if call == "CreateSubmission":
            description, date = body["submissionDescription"], "2026-03-04T22:30:05.123Z"
            fields = {"ref": 4711, "fileName": "net.csv", "description": description, "date": date, "status": "PENDING"}
            self.submissions.insert(0, fields)
            return {"message": "Successfully submitted to Digits", "ref": 4711}
        self.asked += 1
        if self.asked > 2:
            for one in self.submissions:
                one.update(status="COMPLETE", publicScore="0.98765", privateScore="")
        return {"submissions": self.submissions}


class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        call = self.path.rpartition("/")[2]
        self.server.calls.append(call)
        self.server.headers.append(self.headers.get("Authorization", ""))
        status, answer = self.server.faults.get(call, (200, None))
        self.reply(status, self.server.answer(call, body) if answer is None else answer)

    def do_PUT(self):
        self.server.uploads.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(self.server.faults.get("upload", (200, None))[0], {})

    def reply(self, status, answer):
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Let the client speak to the stand-in: its local environment has no port, so the stand-in is its proxy."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    with Kaggle() as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        settings = {"HOME": str(home), "http_proxy": address, "KAGGLE_API_ENVIRONMENT": "LOCALHOST"}
        for name, value in (settings | {"KAGGLE_API_TOKEN": TOKEN, "XDG_CONFIG_HOME": str(home)}).items():
            monkeypatch.setenv(name, value)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def texts_of(root):
    return "\n".join(path.read_text() for path in root.rglob("*") if path.is_file())


def test_the_official_client_sends_waits_and_never_shows_the_token(tmp_path, kaggle, monkeypatch, capfd):
    monkeypatch.setenv("VERBOSE", "1")  # the client then prints the headers of every request
    file, said = add_submission(tmp_path / "w", "net"), []
    patience = Patience(first_pause_sec=0.01)
    sent = send(tmp_path / "w", file, KaggleHost(), said, patience=patience)
    assert (sent.ref, sent.public, sent.private) == (4711, 0.98765, None)
    assert kaggle.uploads == [file.read_bytes()]
    assert [call for call in kaggle.calls if call != "IntrospectToken"] == [
        "ListSubmissions",
        "StartSubmissionUpload",
        "CreateSubmission",
        "ListSubmissions",
        "ListSubmissions",
    ]
    assert any(TOKEN in header for header in kaggle.headers)
    assert record_of(file)["lb"] == {"public": 0.98765}
    assert said == ["sent net.csv to digits as number 4711", *said[1:-1], "net.csv: public 0.98765"]
    assert capfd.readouterr() == ("", "")
    assert TOKEN not in texts_of(tmp_path) + "".join(said)


@pytest.mark.parametrize(
    ("call", "status", "answer", "told"),
    [
        (
            "ListSubmissions",
            403,
            {"code": 403, "message": "You must accept this competition's rules"},
            r"must accept this competition's rules\n.*https://www\.kaggle\.com/competitions/digits/rules",
        ),
        ("ListSubmissions", 404, "no such thing", r"404 Client Error.*\nno such thing\nIs 'digits' the last part"),
        (
            "CreateSubmission",
            400,
            {"code": 400, "message": "Daily limit of 5 reached " + TOKEN},
            r"kaggle: Daily limit of 5 reached \[secret\]\nKaggle counts submissions per day from 00:00 UTC$",
        ),
        ("upload", 400, None, "kaggle: Could not submit to competition\nThe file was not uploaded"),
        ("IntrospectToken", 400, {}, r"Authentication required.*Kaggle does not know who you are\. Put a token"),
        ("ListSubmissions", 401, {}, r"401 Client Error.*Kaggle does not know who you are"),
    ],
    ids=["rules", "unknown", "limit", "upload", "login", "token"],
)
def test_what_the_host_says_is_shown_with_what_to_do(tmp_path, kaggle, capfd, call, status, answer, told):
    kaggle.faults[call] = (status, answer)
    file = add_submission(tmp_path / "w", "net")
    with pytest.raises(HostError, match=f"(?s){told}") as error:
        send(tmp_path / "w", file, KaggleHost())
    assert error.value.is_refused
    assert not record_of(file).get("sent")
    assert TOKEN not in str(error.value) + texts_of(tmp_path) + "".join(capfd.readouterr())


def test_an_error_of_the_host_while_it_takes_a_file_is_no_refusal(tmp_path, kaggle):
    kaggle.faults["CreateSubmission"] = (502, "bad gateway")
    file = add_submission(tmp_path / "w", "net")
    with pytest.raises(HostError, match=r"502 Server Error.*\nbad gateway\nWhether the file arrived is not known"):
        send(tmp_path / "w", file, KaggleHost())
    assert record_of(file)["sent"][0]["ref"] is None


def test_a_missing_client_is_told_with_its_extra(tmp_path, monkeypatch):
    module = tmp_path / "kaggle.py"
    module.write_text("raise ModuleNotFoundError(\"No module named 'kaggle'\", name='kaggle')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        HostError, match=r"No module named 'kaggle'\nModule kaggle is missing: pip install \"podium\[kagg"
    ):
        KaggleHost().submissions("digits")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("print('go away'); raise SystemExit(1)", "kaggle: go away"),
        ("import os; os._exit(3)", "ended with code 3 and no answer"),
    ],
    ids=["exits", "dies"],
)
def test_a_client_that_ends_the_process_does_not_end_ours(tmp_path, monkeypatch, source, told):
    (tmp_path / "kaggle.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(HostError, match=told):
        KaggleHost().submissions("digits")


def test_a_folder_kaggle_in_the_working_directory_is_not_taken_for_the_client(tmp_path, kaggle, monkeypatch):
    work = tmp_path / "work"
    (work / "kaggle").mkdir(parents=True)
    (work / "kaggle" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(work)
    assert KaggleHost().submissions("digits") == []


def test_every_form_of_a_credential_is_blotted_out(tmp_path, kaggle, monkeypatch):
    """A legacy key is sent as base64 of user and key; the stand-in answers with the header that it got."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    folder = Path(tmp_path / "home" / ".kaggle")
    folder.mkdir()
    (folder / "kaggle.json").write_text(json.dumps({"username": "ann", "key": "0badc0ffee0badc0ffee"}))
    kaggle.faults["ListSubmissions"] = (400, "header: Basic YW5uOjBiYWRjMGZmZWUwYmFkYzBmZmVl key: 0badc0ffee0badc0ffee")
    with pytest.raises(HostError, match=r"header: Basic \[secret\] key: \[secret\]"):
        KaggleHost().submissions("digits")
    assert kaggle.headers[-1] == "Basic YW5uOjBiYWRjMGZmZWUwYmFkYzBmZmVl"
