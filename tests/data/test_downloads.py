import hashlib
import io
import multiprocessing
import os
import signal
import tarfile
import zipfile
from pathlib import Path

import pytest
import requests
from small_sets import serving, tree

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.data import downloads
from ultralytics_sgdm.data.downloads import Archive, obtain, unpack

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    with serving({"set.tar": CONTENT, "more.zip": b"more"}) as state:
        yield state


def archive(server, name="set.tar", **change):
    content = server.files[name]
    published = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | change
    return Archive(f"{server.url}/{name}", **published)


def test_a_file_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        (file,) = obtain([archive(server)], tmp_path / "downloads")
        assert file.read_bytes() == CONTENT
    assert server.requests["set.tar"] == 1
    assert {p.name for p in file.parent.iterdir() if p.suffix != ".lock"} == {"set.tar"}


def test_an_interrupted_transfer_goes_on_where_it_broke(server, tmp_path):
    server.cuts["set.tar"] = [1_500_000, 1_000_000, 0, None]
    (file,) = obtain([archive(server)], tmp_path)
    assert file.read_bytes() == CONTENT
    assert server.requests["set.tar"] == 4
    assert server.sent["set.tar"] < len(CONTENT) + 2 * downloads.CHUNK


def test_a_killed_process_is_continued_by_the_next(server, tmp_path):
    def die():
        get = requests.get

        def get_and_die(*args, **kwargs):
            response = get(*args, **kwargs)
            chunks = response.iter_content

            def until_killed(size):
                for i, chunk in enumerate(chunks(size)):
                    if i == 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield chunk

            response.iter_content = until_killed
            return response

        requests.get = get_and_die
        opened = Path.open
        Path.open = lambda file, mode="r", *_, **options: opened(file, mode, 2**24 if "a" in mode else -1, **options)
        obtain([archive(server)], tmp_path)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "set.tar").exists()
    have = (tmp_path / "set.tar.part").stat().st_size
    assert have >= downloads.CHUNK
    server.sent.clear()
    (file,) = obtain([archive(server)], tmp_path)
    assert file.read_bytes() == CONTENT and server.sent["set.tar"] == len(CONTENT) - have


@pytest.mark.parametrize("change", ["etag", "no etag", "no ranges"])
def test_what_cannot_be_continued_begins_anew(server, tmp_path, change):
    (tmp_path / "set.tar.part").write_bytes(b"of an older file")
    (tmp_path / "set.tar.part.json").write_text('{"version": "\\"1\\"", "size": 3000000}')
    if change == "etag":
        server.etag = '"2"'
    elif change == "no etag":
        server.etag = None
        (tmp_path / "set.tar.part.json").write_text('{"version": null, "size": 3000000}')
    else:
        server.ranges = False
    (file,) = obtain([archive(server)], tmp_path)
    assert file.read_bytes() == CONTENT


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT)
    (tmp_path / "set.tar.part.json").write_text(f'{{"version": "\\"1\\"", "size": {len(CONTENT)}}}')
    (file,) = obtain([archive(server)], tmp_path)
    assert file.read_bytes() == CONTENT and server.sent["set.tar"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, r"SHA-256 [0-9a-f]{64}, published is 0{64}; it is removed, run this again"),
        ({"size": 7}, "has 3,000,000 bytes, published are 7; it is removed"),
    ],
)
def test_another_file_than_the_published_one_is_refused(server, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        obtain([archive(server, **change)], tmp_path)
    assert not (tmp_path / "set.tar").exists() and not (tmp_path / "set.tar.part").exists()
    (tmp_path / "root").mkdir()
    mine = tmp_path / "root/set.tar"
    mine.write_bytes(CONTENT)
    with pytest.raises(ConfigError, match=r"root/set.tar has .*; remove the file and run this again"):
        obtain([archive(server, **change)], tmp_path, tmp_path / "root")
    assert mine.read_bytes() == CONTENT


def test_an_unpublished_checksum_is_recorded_and_then_holds(server, tmp_path):
    unpublished = archive(server, size=None, sha256=None)
    (file,) = obtain([unpublished], tmp_path)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "set.tar.sha256").read_text() == f"{digest}  set.tar\n"
    obtain([unpublished], tmp_path)
    file.write_bytes(b"changed")
    with pytest.raises(ConfigError, match=r"recorded in .*set.tar.sha256 is " + digest):
        obtain([unpublished], tmp_path)


def test_files_of_the_user_are_used_in_place(server, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/set.tar").write_bytes(CONTENT)
    before = tree(tmp_path / "root")
    files = obtain([archive(server), archive(server, "more.zip")], tmp_path / "downloads", tmp_path / "root")
    assert files == [tmp_path / "root/set.tar", tmp_path / "downloads/more.zip"]
    assert server.requests == {"more.zip": 1} and tree(tmp_path / "root") == before


def test_offline_lists_the_files_and_where_to_put_them(server, tmp_path):
    wanted = [archive(server), archive(server, "more.zip")]
    gone = [a._replace(url=a.url.replace(server.url, "http://127.0.0.1:9")) for a in wanted]
    with pytest.raises(ConfigError) as error:
        obtain(gone, tmp_path / "downloads")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("cannot download http://127.0.0.1:9/set.tar (")
    assert lines[0].endswith(f"Run this again with a connection, or put these files into {tmp_path}/downloads:")
    assert lines[1:] == [f"  {a.url}  {a.size:,} bytes  SHA-256 {a.sha256}" for a in gone]


@pytest.mark.parametrize(("status", "requested"), [(404, 1), (503, downloads.ATTEMPTS)])
def test_a_server_that_refuses_is_told_apart_from_one_in_trouble(server, tmp_path, status, requested):
    server.status = status
    with pytest.raises(ConfigError, match=f"cannot download .*set.tar .{status} "):
        obtain([archive(server)], tmp_path)
    assert server.requests["set.tar"] == requested


def test_a_full_disk_is_foreseen(server, tmp_path):
    with pytest.raises(ConfigError, match=r"1000000.00 GB are needed there"):
        obtain([archive(server)], tmp_path, room=10**15)
    assert not server.requests


def test_a_disk_that_fills_up_is_survived(server, tmp_path):
    limited = multiprocessing.get_context("fork").Process(target=_with_little_disk, args=(archive(server), tmp_path))
    limited.start()
    limited.join()
    assert limited.exitcode == 0
    assert 0 < (tmp_path / "set.tar.part").stat().st_size <= 2_000_000
    (file,) = obtain([archive(server)], tmp_path)
    assert file.read_bytes() == CONTENT and server.sent["set.tar"] < 2 * len(CONTENT)


def _with_little_disk(wanted, folder):
    """Let writes beyond 2 MB fail as on a full disk."""
    opened = Path.open

    def little(path, mode="r", *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        if "a" in mode:
            write = file.write

            def limited(chunk):
                if file.tell() + len(chunk) > 2_000_000:
                    raise OSError(28, "No space left on device")
                return write(chunk)

            class File:
                flush = file.flush

                def __enter__(self):
                    return self

                def __exit__(self, *args):
                    file.close()

            limited_file = File()
            limited_file.write = limited
            return limited_file
        return file

    Path.open = little
    with pytest.raises(ConfigError, match="the disk is full"):
        obtain([wanted], folder)


def make_archive(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, content in members.items():
                z.writestr(name, content)
    else:
        with tarfile.open(path, "w") as t:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                t.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("set/link.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            t.addfile(link)
    return path


MEMBERS = {f"set/{i}.txt": b"%d" % i * 100 for i in range(20)} | {"set/x.bin": b"no", "set/../../out.txt": b"out"}


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_what_is_wanted_is_unpacked(tmp_path, suffix):
    file = make_archive(tmp_path / f"a.{suffix}", MEMBERS)
    folder = unpack(file, tmp_path / "deep/out", r"set/.*\.txt")
    wanted = {name: content for name, content in MEMBERS.items() if name.endswith("txt") and ".." not in name}
    assert {name: content for name, (content, _) in tree(folder).items()} == wanted
    before = tree(folder)
    unpack(file, folder, r"set/.*\.txt")
    assert tree(folder) == before
    assert not (tmp_path / "out.txt").exists() and not (tmp_path / "deep/out.txt").exists()


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_a_killed_unpacking_is_completed(tmp_path, suffix, monkeypatch):
    file = make_archive(tmp_path / f"a.{suffix}", MEMBERS)
    write = downloads._write_member
    written = []

    def interrupted(path, member):
        if len(written) == 7:
            path.with_name(f"{path.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, member)

    monkeypatch.setattr(downloads, "_write_member", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(file, tmp_path / "out", r"set/.*\.txt")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(downloads, "_write_member", lambda path, m: (written.append(path.name), write(path, m)))
    unpack(file, tmp_path / "out", r"set/.*\.txt")
    assert len(written) == len(set(written)) == len(tree(tmp_path / "out")) == 20


def test_damaged_and_other_archives_are_named(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"bad.tar is unreadable .*; remove it"):
        unpack(tmp_path / "bad.tar", tmp_path / "out", ".*")
    other = make_archive(tmp_path / "other.zip", {"a.txt": b"a"})
    with pytest.raises(ConfigError, match=r"other.zip has no files set/\.\*"):
        unpack(other, tmp_path / "out", "set/.*")
    assert not (tmp_path / "out").exists()
