"""Signals: the first asks, the second ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rltrain.training.stopping import StopSignal


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_only_asks(number: int, exit_code: int) -> None:
    before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    with StopSignal() as stop:
        assert not stop.requested
        assert stop.exit_code == 0
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # what `timeout` sends to the process and its group is one request
        assert stop.requested
        assert stop.exit_code == exit_code
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before


def test_the_closing_of_a_terminal_asks_and_never_ends() -> None:
    """It may come several times; SIGTERM after it is the first that somebody sent on purpose."""
    with StopSignal() as stop:
        stop._handle(signal.SIGHUP, None)
        assert stop.exit_code == 129
        stop._at -= 10
        stop._handle(signal.SIGHUP, None)
        stop._handle(signal.SIGTERM, None)
        assert stop.exit_code == 143
        stop._at -= 10
        stop._handle(signal.SIGHUP, None)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_others_took_are_taken_back() -> None:
    with StopSignal() as stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            assert not stop.requested
            signal.signal(number, signal.SIG_IGN)
        assert not stop.requested
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # ignored, of which Python does not know
        assert not any(stop.requested for _ in range(1024))
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_outside_the_main_thread_it_does_nothing() -> None:
    seen = []

    def enter() -> None:
        with StopSignal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False]


LOOP = """
import multiprocessing, sys, time
from rltrain.training.stopping import StopSignal
if __name__ == "__main__":
    with StopSignal() as stop:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        print(child.pid, flush=True)
        while not stop.requested:
            time.sleep(0.001)
        print("saving", flush=True)
        while True:  # saving takes forever
            time.sleep(0.001)
"""


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_the_process_and_its_children_at_once(number: int, exit_code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"saving\n"
        time.sleep(0.3)
        assert process.poll() is None
        begin = time.monotonic()
        process.send_signal(number)
        assert process.wait(5) == exit_code
        assert time.monotonic() - begin < 2
        assert process.stderr.read() == b"stopping after this step, saving; again to stop at once\n"
        deadline = time.monotonic() + 2
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
