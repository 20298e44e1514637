"""Images that `homebound serve` refuses, or serves as the options say."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .conftest import Served, without_reading

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]


def test_one_that_is_not_there(refused: Refused, tmp_path: Path):
    image = tmp_path / "none.img"
    assert refused(image) == f"homebound: cannot open image '{image}': No such file or directory"


def test_a_directory(refused: Refused, tmp_path: Path):
    assert "Is a directory" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_one_that_may_not_be_read(refused: Refused, image: Path):
    with without_reading(image):
        assert "Permission denied" in refused(image)


def test_an_empty_one(refused: Refused, tmp_path: Path):
    (tmp_path / "empty.img").touch()
    assert "empty" in refused(tmp_path / "empty.img")


def test_a_file_of_the_kernel(refused: Refused):
    # Only root may open it for writing.
    assert "it has no size that can be told" in refused("/proc/version", "--read-only")


def test_a_name_that_is_not_utf_8(serve: Serve, image: Path):
    strange = image.rename(os.fsdecode(bytes(image.parent) + b"/\xff.img"))
    served = serve(bytes(strange), "--port", "0")
    assert served.hear() == f"serving '{image.parent}/\\udcff.img', 1 MiB, at {served.uri}\n"
    assert served.stop()[0] == 0


class TestLocks:
    def test_a_second_server_is_refused(self, serve: Serve, refused: Refused, image: Path):
        first = serve(image, "--port", "0")
        assert refused(image, "--port", "0") == (
            f"homebound: cannot open image '{image}': another homebound "
            f"(process {first.process.pid}) has it open for writing; "
            "--read-only shares it, --no-lock opens it anyway"
        )
        for option in ("--read-only", "--no-lock"):
            second = serve(image, "--port", "0", option)
            assert second.uri
            assert second.stop()[0] == 0
        assert first.stop()[0] == 0
        assert serve(image, "--port", "0").stop()[0] == 0

    def test_a_killed_server_leaves_no_lock(self, serve: Serve, image: Path):
        first = serve(image, "--port", "0")
        first.process.kill()
        first.finish()
        assert serve(image, "--port", "0").stop()[0] == 0

    @pytest.mark.peers
    def test_qemu_first(self, refused: Refused, image: Path):
        if shutil.which("qemu-nbd") is None:
            pytest.skip("qemu-nbd (Debian: qemu-utils) is not installed")
        path = image.with_suffix(".pid")
        command = ["qemu-nbd", "-f", "raw", "-t", "-k", str(image.with_suffix(".sock")), str(image)]
        subprocess.run([*command, "--fork", "--pid-file", str(path)], check=True, timeout=50)
        pid = int(path.read_text())
        try:
            assert f"QEMU (qemu-nbd, process {pid}) has it open for writing" in refused(image)
        finally:
            os.kill(pid, 9)

    @pytest.mark.peers
    def test_qemu_second(self, serve: Serve, image: Path):
        if shutil.which("qemu-nbd") is None:
            pytest.skip("qemu-nbd (Debian: qemu-utils) is not installed")
        served = serve(image, "--port", "0")
        assert served.uri
        command = ["qemu-nbd", "-f", "raw", "-t", "-k", str(image.with_suffix(".sock")), str(image)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 1
        assert 'Failed to get "write" lock' in done.stderr
        assert served.stop()[0] == 0


@pytest.mark.peers
class TestFormats:
    @pytest.mark.parametrize("name", ["qed", "vmdk", "vhdx", "vdi"])
    def test_unsupported_formats_are_refused(self, refused: Refused, tmp_path: Path, name: str):
        image = tmp_path / "image"
        self.make(image, name)
        assert refused(image) == (
            f"homebound: cannot open image '{image}': it is a {name} image, which is not "
            "supported; convert it (qemu-img convert -O raw), or serve its bytes as they are: "
            "--format raw"
        )

    def test_format_raw_serves_the_bytes(self, serve: Serve, tmp_path: Path):
        image = tmp_path / "image"
        self.make(image, "qcow2")
        served = serve(image, "--port", "0", "--format", "raw")
        command = ["qemu-img", "info", "-f", "qcow2", f"json:{self.qcow2_over(served.uri)}"]
        info = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
        assert "virtual size: 1 MiB" in info.stdout
        assert served.stop()[0] == 0

    def test_qcow2_is_read_only(self, serve: Serve, tmp_path: Path):
        image = tmp_path / "image"
        self.make(image, "qcow2")
        self.run("qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 4k", image)
        served = serve(image, "--port", "0")
        info = self.run("qemu-img", "info", "-f", "raw", served.uri)
        assert "virtual size: 1 MiB" in info
        self.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "-U", served.uri, image)
        assert served.stop()[0] == 0

    def test_backing_files_are_followed_when_asked_for(
        self, serve: Serve, refused: Refused, tmp_path: Path
    ):
        base, image = tmp_path / "base", tmp_path / "image"
        base.write_bytes(b"b" * (1 << 20))
        self.run("qemu-img", "create", "-f", "qcow2", "-b", "base", "-F", "raw", image)
        line = refused(image)
        assert f"it names a backing file, '{base}', which is followed only if" in line
        assert "homebound serve --format qcow2" in line
        served = serve(image, "--port", "0", "--format", "qcow2")
        self.run("qemu-img", "compare", "-f", "raw", "-F", "raw", "-U", served.uri, base)
        assert served.stop()[0] == 0

    def run(self, *command: object) -> str:
        if shutil.which(str(command[0])) is None:
            pytest.skip(f"{command[0]} (Debian: qemu-utils) is not installed")
        words = list(map(str, command))
        done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=True)
        return done.stdout

    def make(self, image: Path, name: str) -> None:
        if shutil.which("qemu-img") is None:
            pytest.skip("qemu-img (Debian: qemu-utils) is not installed")
        command = ["qemu-img", "create", "-q", "-f", name, str(image), "1M"]
        subprocess.run(command, check=True, timeout=50)

    def qcow2_over(self, uri: str) -> str:
        host, port = uri.split("/")[2].split(":")
        return (
            '{"driver": "qcow2", "file": {"driver": "nbd", "server": '
            f'{{"type": "inet", "host": "{host}", "port": "{port}"}}}}}}'
        )
