"""The options of `homebound serve`."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from dataclasses import replace

import click

from .._threads.run import run
from ..block._names import MEMORY
from ..nbd._server.server import DEFAULT_PORT
from ._address import DEFAULT_HOST, Address, take_activated
from ._began import Progress
from ._disks import AUTO, FORMATS, Opener, is_script
from ._exports import Choice, open_exports, split_export
from ._remote import RECONNECT_DELAY, REQUEST_TIMEOUT, Link
from ._serve import Service
from ._signals import Signals
from ._tls import tls_context
from ._types import COMMAND, HOST, PATH, SECONDS, SIZE, SPEC, Parsed

_DEFAULT_SIZE = 1 << 30


@click.command()
@click.argument("image", required=False, type=SPEC)
@click.argument("parameters", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--size",
    type=SIZE,
    help="Without IMAGE, make the disk in memory this large: 512M, 1G.  [default: 1G]",
)
@click.option("--name", default="", help="Name the export of IMAGE.  [default: the empty name]")
@click.option(
    "--export",
    "exports",
    type=Parsed("name=spec", split_export),
    multiple=True,
    help="Export SPEC, an image, an NBD URI or `memory:SIZE`, under this name. May be given "
    "several times.",
)
@click.option(
    "--dir",
    "directory",
    type=PATH,
    help="Export the images in this directory, by the names of their files, as they are asked for.",
)
@click.option(
    "--script",
    type=PATH,
    help="Serve the disk of this Python script, or of this nbdkit plugin. The arguments KEY=VALUE "
    "are its parameters.",
)
@click.option(
    "--overlay",
    type=PATH,
    help="Leave the image as it is, and write to this file, which is made if there is none.",
)
@click.option(
    "--overlay-per-client",
    is_flag=True,
    help="Leave images as they are, and keep the writes of each connection in memory, until it "
    "ends.",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    default=AUTO,
    show_default=True,
    help="Take images for this format. `raw` serves their bytes as they are, `qcow2` follows the "
    "backing files that they name.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Make this many connections to each other NBD server that allows several.",
)
@click.option(
    "--reconnect-delay",
    metavar="SECONDS",
    type=SECONDS,
    default=RECONNECT_DELAY,
    show_default=True,
    help="Have requests wait this long for another NBD server whose connection is lost; then they "
    "fail.",
)
@click.option(
    "--request-timeout",
    metavar="SECONDS",
    type=SECONDS,
    default=REQUEST_TIMEOUT,
    show_default=True,
    help="Fail a request that another NBD server has not answered within this time (0: never). "
    "Two servers that export each other's disks never answer.",
)
@click.option("--read-only", is_flag=True, help="Reject writes, and share images with a writer.")
@click.option("--no-lock", is_flag=True, help="Open images even if another program writes to them.")
@click.option("--unix", type=PATH, help="Listen on this Unix socket.")
@click.option("--host", type=HOST, help="Listen on this address.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"Listen on this port; 0 takes a free one.  [default: {DEFAULT_PORT}]",
)
@click.option(
    "--socket-fd",
    "descriptors",
    type=click.IntRange(0),
    multiple=True,
    help="Listen on this socket, which the caller has opened. May be given several times.",
)
@click.option(
    "--iothreads",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Serve clients in this many threads; 0 serves them in the main one.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    help="Close connections beyond this many at once.  [default: 100]",
)
@click.option(
    "--round-size",
    type=SIZE,
    help="Round sizes up to a multiple of this, 512 or 4K, for clients that read whole blocks. "
    "Zeroes follow the end.",
)
@click.option(
    "--tls-certificates",
    type=PATH,
    help="Let clients encrypt the connection, with server-cert.pem and server-key.pem in this "
    "directory.",
)
@click.option(
    "--tls-verify-peer",
    is_flag=True,
    help="With --tls-certificates, accept only clients whose certificate ca-cert.pem has signed.",
)
@click.option(
    "--tls-psk",
    type=PATH,
    help="Let clients encrypt the connection, with the keys in this file: lines USER:KEY, the key "
    "in hexadecimal. Needs Python 3.13.",
)
@click.option("--tls-required", is_flag=True, help="Serve no client that does not encrypt.")
@click.option(
    "--pidfile", type=PATH, help="Write the process's number here, once clients can connect."
)
@click.option(
    "--run",
    "command",
    type=COMMAND,
    help="Run this shell command with $uri, $unixsocket, $port, $size and $exportname set, stop "
    "when it ends, and exit with its status. Unless told where, listen on a private socket.",
)
@click.pass_context
def serve(  # noqa: PLR0913  (one parameter an option)
    ctx: click.Context,
    *,
    image: str | None,
    parameters: tuple[str, ...],
    size: int | None,
    name: str,
    exports: tuple[tuple[str, str], ...],
    directory: str | None,
    script: str | None,
    overlay: str | None,
    overlay_per_client: bool,
    image_format: str,
    connections: int,
    reconnect_delay: float,
    request_timeout: float,
    read_only: bool,
    no_lock: bool,
    unix: str | None,
    host: str | None,
    port: int | None,
    descriptors: tuple[int, ...],
    iothreads: int,
    max_connections: int | None,
    round_size: int | None,
    tls_certificates: str | None,
    tls_verify_peer: bool,
    tls_psk: str | None,
    tls_required: bool,
    pidfile: str | None,
    command: str | None,
) -> None:
    """Serve IMAGE, a raw disk image or block device, over NBD until Ctrl-C or SIGTERM.

    IMAGE may be an NBD URI, too: then the export of another server is served. It may be a Python
    script: `disk.py KEY=VALUE...` is the same as --script.

    Without IMAGE, --export, --dir and --script, serve a disk in memory, which takes room only where
    it is written.

    The URI of each export is written to standard output once clients can connect. SIGUSR1 shows
    statistics. SIGTERM, SIGINT, SIGHUP and SIGQUIT stop the server: requests in flight are
    answered, and the images are flushed.

    Started by systemd, the server listens on the sockets of its unit (LISTEN_FDS), and tells when
    it is ready (NOTIFY_SOCKET).
    """
    ctx.ensure_object(Progress).began = True
    choice = choose(image, parameters, script, name, exports, directory, size)
    choice = replace(choice, overlay=overlay, overlay_per_client=overlay_per_client)
    choice.check(read_only=read_only, image_format=image_format, lock=not no_lock)
    tls = tls_context(tls_certificates, tls_psk, verify_peer=tls_verify_peer, required=tls_required)
    limits = {
        "max_connections": max_connections,
        "round_size": round_size,
        "tls": tls,
        "tls_required": tls_required,
    }
    opener = Opener(
        image_format,
        read_only=read_only,
        lock=not no_lock,
        overlay=choice.has_overlay,
        link=Link(connections, reconnect_delay, request_timeout or None),
    )
    with Signals() as signals, ExitStack() as stack:
        address = _address(unix, host, port, descriptors)
        if address is None and command is not None:
            private = stack.enter_context(tempfile.TemporaryDirectory(prefix="homebound-"))
            address = Address(f"{private}/nbd.sock")
        listened = address or Address()
        for _, spec in choice.named:
            listened.check_other(spec)
        signals.overdue = opener.overdue
        served = open_exports(choice, opener, stack, round_size=round_size or 1)
        service = Service(served, listened, iothreads, limits, pidfile, command)
        with closing(service.run(signals)) as work:  # for the case that no loop can be made
            status = run(work)
    ctx.exit(status)


def choose(  # noqa: PLR0913, PLR0917  (one parameter an option)
    image: str | None,
    parameters: tuple[str, ...],
    script: str | None,
    name: str,
    exports: tuple[tuple[str, str], ...],
    directory: str | None,
    size: int | None,
) -> Choice:
    """Return what the arguments name. Raises UsageError."""
    if script is not None and image is not None:
        parameters = (image, *parameters)
        image = None
    elif image is not None and is_script(image):
        image, script = None, image
    if parameters and script is None:
        raise click.UsageError(f"Got unexpected extra argument ({parameters[0]})")
    if image is None and script is None and not exports and directory is None:
        image = f"{MEMORY}{size or _DEFAULT_SIZE}"
    elif size is not None:
        raise click.UsageError("--size is for a disk in memory; IMAGE has its own size")
    named = ((name, image), *exports) if image is not None else exports
    return Choice(named, directory, script, [_parameter(each) for each in parameters], name)


def _parameter(text: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not (key and mark):
        raise click.UsageError(f"{text!r} is no parameter of the script; write KEY=VALUE")
    return key, value


def _address(
    unix: str | None, host: str | None, port: int | None, descriptors: tuple[int, ...]
) -> Address | None:
    """Return the address to listen on, None if no option names one."""
    tcp = host is not None or port is not None
    activated = take_activated()
    said = {
        "--unix": unix is not None,
        "--host/--port": tcp,
        "--socket-fd": bool(descriptors),
        "LISTEN_FDS": bool(activated),
    }
    places = [option for option, is_said in said.items() if is_said]
    if len(places) > 1:
        raise click.UsageError(f"{' and '.join(places)} are two addresses to listen on; choose one")
    if tcp:
        return Address(host=host or DEFAULT_HOST, port=DEFAULT_PORT if port is None else port)
    return Address(unix, descriptors=descriptors or activated) if places else None
