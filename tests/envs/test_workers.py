import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from halves import often

from rltrain.config.schema import EnvConfig
from rltrain.envs.make_vector import make_vector_env
from rltrain.errors import RequestError, RunFailed
from rltrain.seeding import derive_seed


def make(id, num_envs, vectorization="async", timeout=30.0, **kwargs):
    config = EnvConfig(f"probe_envs:{id}" if ":" not in id else id[1:], kwargs, None, None, vectorization, timeout)
    return make_vector_env(config, num_envs, lambda env, number: derive_seed(0, "environment", env, number))


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pids, seconds):
    deadline = time.monotonic() + seconds
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(running, pids))


def test_workers_give_the_numbers_of_one_process_and_of_a_restored_one():
    envs, alone, other = make("Walk-v0", 3), make("Walk-v0", 3, "sync"), make("Walk-v0", 3)
    try:
        assert np.array_equal(envs.reset(), alone.reset())
        generator = np.random.default_rng(0)
        ended = 0
        for step in range(200):
            action = generator.normal(size=(3, 1)).astype(np.float32)
            active = None if step % 2 else generator.random(3) < 0.7
            (a, obs_a, done_a), (b, obs_b, done_b) = envs.step(action, active), alone.step(action, active)
            rows = np.ones(3, bool) if active is None else active
            for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "active"):
                assert np.array_equal(getattr(a, name)[rows], getattr(b, name)[rows]), name
            assert np.array_equal(obs_a, obs_b)
            assert done_a == done_b
            ended += len(done_a)
        assert ended > 10
        state = envs.state_dict()
        assert all(np.array_equal(array, state[name]) for name, array in alone.state_dict().items())
        obs, exact = other.load_state_dict(state)
        assert exact
        assert np.array_equal(obs, obs_a)
        assert np.array_equal(other.step(action)[0].next_obs, alone.step(action)[0].next_obs)
    finally:
        envs.close(), other.close()


def test_workers_have_no_torch_share_environments_and_end_on_close():
    import torch  # noqa: F401 - the parent has it, the workers must not

    envs = make("Pid-v0", 5)
    obs = envs.reset()
    pids = set(obs[:, 0].astype(int).tolist())
    assert 1 < len(pids) <= (os.cpu_count() or 1)
    assert os.getpid() not in pids
    assert not obs[:, 1].any()
    envs.close()
    assert not any(map(running, pids))
    envs.close()


def test_signals_to_the_group_leave_workers_to_their_parent():
    envs = make("Pid-v0", 2)
    pids = envs.reset()[:, 0].astype(int).tolist()
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in pids:
            os.kill(pid, number)
    time.sleep(0.1)
    assert envs.step(np.zeros(2, np.int64))[1][:, 0].astype(int).tolist() == pids
    envs.close()


_PARENT = """
import numpy as np, sys, os, signal
from rltrain.config.schema import EnvConfig
from rltrain.envs.make_vector import make_vector_env
envs = make_vector_env(EnvConfig("probe_envs:" + sys.argv[1], {}, None, None, "async", None), 2, lambda i, k: i)
envs.reset()
print(*[w._process.pid for w in envs._group._workers], flush=True)
if sys.argv[2] == "kill": os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "exit": os._exit(130)
if sys.argv[2] == "forget": sys.exit(0)
while True: envs.step(np.zeros(2, np.int64))
"""


@pytest.mark.parametrize("how", often(["kill", "exit", "forget"], ["kill"]))
def test_no_worker_outlives_its_parent(how):
    done = subprocess.run([sys.executable, "-c", _PARENT, "Pid-v0", how], capture_output=True, text=True, timeout=60)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert gone_within(pids, 5)
    assert done.stderr == ""


def test_no_worker_outlives_its_parent_while_its_environment_hangs():
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, "Hangs-v0", "step"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.3)
        assert all(map(running, pids))
        parent.kill()
        assert gone_within(pids, 5)
        assert parent.stderr.read() == ""


def test_a_signal_while_workers_start_does_not_end_them():
    code = "import signal; signal.signal(signal.SIGINT, lambda *_: None); print(flush=True)" + _PARENT
    arguments = [sys.executable, "-c", code, "Pid-v0", "forget"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        parent.stdout.readline()
        while not select.select([parent.stdout], [], [], 0.005)[0]:
            os.killpg(parent.pid, signal.SIGINT)
        assert len(parent.stdout.read().split()) == 2
        assert parent.stderr.read() == ""


def test_an_error_carries_environment_index_step_and_traceback():
    envs = make("Raises-v0", 4)
    envs.reset()
    envs.step(np.zeros(4, np.int64), np.array([False, False, False, True]))
    envs.step(np.zeros(4, np.int64))
    pids = [w._process.pid for w in envs._group._workers]
    with pytest.raises(RunFailed) as caught:
        envs.step(np.zeros(4, np.int64))
    seed = derive_seed(0, "environment", 3, 0)
    assert str(caught.value).startswith(
        f"probe_envs:Raises-v0: environment 3 failed in step 3 of the episode with seed {seed}: "
        "ValueError: the left wheel came off, at "
    )
    assert "in fault" in str(caught.value.__cause__)
    assert gone_within(pids, 1)
    envs.close()


def test_a_worker_that_dies_is_named(capfd):
    envs = make("Dies-v0", 4, at=2)
    envs.reset()
    envs.step(np.zeros(4, np.int64), np.array([False, False, True, False]))
    with pytest.raises(RunFailed, match=r"worker process of probe_envs:Dies-v0: environment 2 died \(exit code 11\)"):
        envs.step(np.zeros(4, np.int64))
    with pytest.raises(RunFailed, match="have ended"):
        envs.step(np.zeros(4, np.int64))
    envs.close()
    assert capfd.readouterr().err == ""


def test_a_killed_worker_is_named():
    envs = make("Pid-v0", 2)
    pid = int(envs.reset()[1, 0])
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"Pid-v0: environment 1 died \(signal SIGKILL: memory may have run out\)"):
        envs.step(np.zeros(2, np.int64))


def test_an_environment_that_hangs_is_named_and_ended():
    envs = make("Hangs-v0", 4, timeout=0.5, at=2)
    envs.reset()
    envs.step(np.zeros(4, np.int64), np.array([False, True, False, False]))
    pids = [w._process.pid for w in envs._group._workers]
    start = time.monotonic()
    with pytest.raises(RunFailed, match=r"Hangs-v0: environment 1 did not answer within env.step_timeout=0.5 s"):
        envs.step(np.zeros(4, np.int64))
    assert time.monotonic() - start < 2
    assert gone_within(pids, 1)
    envs.close()


def test_a_non_finite_number_in_a_worker_stops_the_run():
    envs = make("Nan-v0", 2, what="obs", at=1)
    envs.reset()
    with pytest.raises(RunFailed, match=r"environment 0 failed in step 1 .*observation is not finite"):
        envs.step(np.zeros(2, np.int64))


def test_what_cannot_be_made_is_refused_before_a_worker_starts():
    with pytest.raises(RequestError, match="unexpected keyword argument 'wheels'"):
        make("Pid-v0", 2, wheels=3)
