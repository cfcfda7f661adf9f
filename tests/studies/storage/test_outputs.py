"""Results are made whole, and nothing of anybody else is ever removed, replaced or emptied."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys

import pytest

from studies import paths
from studies.storage import outputs
from studies.storage.outputs import InUse, OutputError

COMMAND = "ppp run"


def fill(folder):
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "table.csv").write_text("n\n2\n")
    (folder / "page.html").write_text("<p>")


@pytest.fixture
def result(tmp_path):
    with outputs.made(tmp_path / "result", COMMAND) as folder:
        fill(folder)
    return tmp_path / "result"


def everything(folder):
    """Return every path below a folder with what it holds; links as what they point to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        else:
            found[path] = path.read_bytes() if path.is_file() else None
    return found


def file(place):
    place.write_text("a thesis")


def folder_of_files(place):
    place.mkdir()
    (place / "thesis.txt").write_text("all of it")


def folder_of_folders(place):
    (place / "results").mkdir(parents=True)
    (place / "results" / "table.csv").write_text("mine")


def hidden_file(place):
    place.mkdir()
    (place / ".config").write_text("mine")


def link_to_folder(place):
    other = place.with_name("elsewhere")
    folder_of_files(other)
    place.symlink_to(other)


def link_to_nothing(place):
    place.symlink_to("nowhere")


def of_another_command(place):
    with outputs.made(place, "ppp course") as folder:
        fill(folder)


def with_a_foreign_file(place):
    with outputs.made(place, COMMAND) as folder:
        fill(folder)
    (place / "results" / "notes.txt").write_text("mine")


def with_a_changed_file(place):
    with outputs.made(place, COMMAND) as folder:
        fill(folder)
    (place / "results" / "table.csv").write_text("n\n3\n")


def with_a_link_inside(place):
    with outputs.made(place, COMMAND) as folder:
        fill(folder)
    (place / "results" / "table.csv").rename(place.with_name("table.csv"))
    (place / "results" / "table.csv").symlink_to(place.with_name("table.csv"))


def with_a_damaged_marker(place):
    with outputs.made(place, COMMAND) as folder:
        fill(folder)
    (place / outputs.MARKER).write_text("{")


def with_a_pipe_as_marker(place):
    place.mkdir()
    os.mkfifo(place / outputs.MARKER)


FOREIGN = (
    file,
    folder_of_files,
    folder_of_folders,
    hidden_file,
    link_to_folder,
    link_to_nothing,
    of_another_command,
    with_a_foreign_file,
    with_a_changed_file,
    with_a_link_inside,
    with_a_damaged_marker,
    with_a_pipe_as_marker,
)


@pytest.mark.parametrize("state", FOREIGN)
@pytest.mark.parametrize("force", [False, True])
def test_what_a_command_did_not_make_stays(tmp_path, state, force):
    place = tmp_path / "place"
    state(place)
    before = everything(tmp_path)
    with pytest.raises(OutputError) as caught, outputs.made(place, COMMAND, force=force):
        pytest.fail("it should have been refused before any work")
    assert "place" in str(caught.value) and "\n" not in str(caught.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_place_without_a_name_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="name of a new folder"), outputs.made(place, COMMAND):
        pass
    with pytest.raises(OutputError, match="name of a new file"):
        outputs.write_page(place, "<p>", COMMAND)
    assert everything(tmp_path) == {}


def test_an_own_result_is_replaced_only_when_asked(result):
    before = everything(result)
    with pytest.raises(OutputError, match="--force"), outputs.made(result, COMMAND):
        pass
    assert everything(result) == before
    with outputs.made(result, COMMAND, force=True) as folder:
        (folder / "other.csv").write_text("n\n")
    assert sorted(path.name for path in result.iterdir()) == [outputs.MARKER, "other.csv"]
    assert [path.name for path in result.parent.iterdir()] == ["result"]


def test_a_page_about_a_result_may_go_with_it(result):
    outputs.write_page(result / "compare.html", "<p>", "ppp compare")
    with outputs.made(result, COMMAND, force=True) as folder:
        fill(folder)
    outputs.write_page(result / "compare.html", "<p>", "ppp compare")
    with (result / "compare.html").open("a") as page:
        page.write("a remark")
    with pytest.raises(OutputError, match="compare"):
        outputs.check_free(result, COMMAND, force=True)


def test_a_failure_leaves_everything_as_it_was(result, tmp_path):
    before = everything(tmp_path)
    for place in (result, tmp_path / "deep" / "new"):
        with pytest.raises(ZeroDivisionError), outputs.made(place, COMMAND, force=True) as folder:
            fill(folder)
            raise ZeroDivisionError
    assert everything(tmp_path) == before


def test_what_comes_into_the_place_meanwhile_stays(tmp_path):
    place = tmp_path / "place"
    with pytest.raises(OutputError), outputs.made(place, COMMAND) as folder:
        fill(folder)
        folder_of_files(place)
    assert [path.name for path in place.iterdir()] == ["thesis.txt"]


def test_what_a_killed_command_left_is_taken_away_and_put_back(result, tmp_path):
    """Kill it while it makes the folder, and between the two steps of systems without a swap."""
    left = tmp_path / ".result.making-killed"
    left.mkdir()
    outputs._mark(left, COMMAND, {})
    foreign = tmp_path / ".result.making-foreign"
    foreign.mkdir()
    before = everything(result)
    os.replace(result, tmp_path / ".result.previous")
    with pytest.raises(OutputError, match="exists"), outputs.made(result, COMMAND):
        pass
    assert everything(result) == before
    assert foreign.exists() and not left.exists()


def test_a_system_without_a_swap(result, monkeypatch):
    monkeypatch.setattr(outputs, "_swapped", lambda one, other: False)
    with outputs.made(result, COMMAND, force=True) as folder:
        (folder / "other.csv").touch()
    assert (result / "other.csv").exists() and not (result / "page.html").exists()
    assert [path.name for path in result.parent.iterdir()] == ["result"]


# ---- folders that are gone on with


@pytest.mark.parametrize("state", [s for s in FOREIGN if "with_a" not in s.__name__])
def test_a_folder_to_work_in_is_ones_own(tmp_path, state):
    place = tmp_path / "place"
    state(place)
    before = everything(tmp_path)
    work = outputs.working(place, "ppp study bhv", "give another --out")
    with pytest.raises(OutputError, match="give another --out"), work:
        pass
    assert everything(tmp_path) == before


def test_a_folder_to_work_in_goes_on_and_goes_if_nothing_was_kept(tmp_path):
    place = tmp_path / "runs" / "bhv"
    with outputs.working(place, "ppp study bhv"):
        pass
    assert not (tmp_path / "runs").exists()
    with outputs.working(place, "ppp study bhv"):
        (place / "run").mkdir()
    with outputs.working(place, "ppp study bhv"):
        assert (place / "run").is_dir()
    (place / "notes.txt").touch()  # whoever writes there later keeps it
    with outputs.working(place, "ppp study bhv"):
        pass
    assert (place / "notes.txt").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    with outputs.working(mine, "ppp study bhv"):
        pass
    assert mine.is_dir()


# ---- files of a folder


def test_files_that_somebody_else_wrote_are_not_updated(tmp_path):
    (tmp_path / "runs.csv").write_text("mine")
    (tmp_path / "other.csv").write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(OutputError, match=r"runs\.csv was not written by 'ppp study bhv'"):
        outputs.update(tmp_path, {"accuracy.csv": b"1", "runs.csv": b"2"}, "ppp study bhv")
    assert everything(tmp_path) == before
    outputs.update(tmp_path, {"accuracy.csv": b"1"}, "ppp study bhv")
    with pytest.raises(OutputError, match="not written by 'ppp posenet'"):
        outputs.update(tmp_path, {"accuracy.csv": b"2"}, "ppp posenet")
    assert (tmp_path / "accuracy.csv").read_bytes() == b"1"


def test_an_update_that_was_killed_is_gone_on_with(tmp_path, monkeypatch):
    outputs.update(tmp_path, {"a.csv": b"1", "b.csv": b"1"}, "ppp study bhv")
    write = outputs.write

    def killed(path, content):
        if path.name == "b.csv":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(outputs, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        outputs.update(tmp_path, {"a.csv": b"2", "b.csv": b"2"}, "ppp study bhv")
    monkeypatch.undo()
    outputs.update(tmp_path, {"a.csv": b"3", "b.csv": b"3"}, "ppp study bhv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes() == b"3"


@pytest.mark.parametrize("state", [file, folder_of_files, link_to_folder, link_to_nothing])
def test_a_page_replaces_nothing_of_others(tmp_path, state):
    place = tmp_path / "place"
    state(place)
    before = everything(tmp_path)
    for force in (False, True):
        with pytest.raises(OutputError, match="place"):
            outputs.write_page(place, "<p>", "ppp compare", force=force)
    assert everything(tmp_path) == before


def test_shipped_tables_are_what_their_markers_say():
    markers = sorted(paths.DATA.glob(f"*/{outputs.MARKER}"))
    assert len(markers) == 11
    for marker in markers:
        listed = json.loads(marker.read_text())["files"]
        changed = [n for n, known in listed.items() if not outputs._is(marker.parent / n, known)]
        assert listed and not changed, f"{marker}: {changed[0]} is not what was written"


# ---- locks


def lock_link(path, victim):
    path.symlink_to(victim)


def lock_hard_link(path, victim):
    os.link(victim, path)


def lock_file(path, victim):
    path.write_text("precious\n")


def lock_folder(path, victim):
    path.mkdir()


def lock_pipe(path, victim):
    os.mkfifo(path)


@pytest.mark.parametrize("state", [lock_link, lock_hard_link, lock_file, lock_folder, lock_pipe])
def test_what_is_no_lock_is_neither_followed_nor_emptied(tmp_path, state):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious\n")
    path = tmp_path / ".lock"
    state(path, victim)
    with pytest.raises(OutputError, match="no lock"), outputs.held(path, COMMAND):
        pass
    assert victim.read_text() == "precious\n"
    assert os.path.lexists(path)


def test_a_second_writer_is_told_who_is_at_work(tmp_path):
    place = tmp_path / "place"
    with outputs.made(place, COMMAND) as folder:
        fill(folder)
        with pytest.raises(InUse) as caught, outputs.made(place, COMMAND):
            pass
        says = rf"place: 'ppp run' is at work here \(process {os.getpid()}, since 20.* UTC\); wait"
        caught.match(says)
    assert (place / "page.html").exists()


@pytest.mark.parametrize("name", [".lock", ".place.lock", "0"])
def test_a_lock_may_have_any_name(tmp_path, name):
    first, second = (outputs.held(tmp_path / name, COMMAND) for _ in range(2))
    with first, pytest.raises(InUse, match="at work here"), second:
        pass


def test_a_lock_that_a_killed_command_left_is_taken(tmp_path):
    path = tmp_path / ".lock"
    code = "import os, sys; from studies.storage import outputs\n"
    code += f"with outputs.held({str(path)!r}, 'ppp run'): os._exit(1)"
    subprocess.run([sys.executable, "-c", code])
    assert path.exists()
    with outputs.held(path, COMMAND):
        pass
    assert not path.exists()


def test_a_child_holds_the_locks_of_a_parent_that_was_killed(tmp_path):
    path = tmp_path / ".lock"
    code = (
        "import os, subprocess; from studies.storage import outputs\n"
        f"with outputs.held({str(path)!r}, 'ppp run'):\n"
        "    child = subprocess.Popen(['sleep', '60'], stdout=-3, pass_fds=outputs.descriptors())\n"
        "    print(child.pid, flush=True)\n"
        "    os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(done.stdout)
    try:
        with pytest.raises(InUse, match="'ppp run' is at work"), outputs.held(path, COMMAND):
            pass
    finally:
        os.kill(child, 9)
    while True:  # until it is gone
        with contextlib.suppress(InUse), outputs.held(path, COMMAND):
            break


def _count(path, rounds):
    for _ in range(rounds):
        while True:
            with contextlib.suppress(InUse), outputs.held(path / ".lock", COMMAND):
                number = int((path / "n").read_text())
                (path / "n").write_text(str(number + 1))
                break


def test_only_one_holds_a_lock_that_is_made_and_removed_all_the_time(tmp_path):
    (tmp_path / "n").write_text("0")
    context = multiprocessing.get_context("fork")
    counting = [context.Process(target=_count, args=(tmp_path, 50)) for _ in range(4)]
    for one in counting:
        one.start()
    for one in counting:
        one.join(60)
    assert int((tmp_path / "n").read_text()) == 200
