"""`env.wrappers` on the command line: names, arguments, and what is refused before anything is made."""

from __future__ import annotations

import pytest

from rltrain.commands.completion import _wrappers
from rltrain.commands.list import main as list_main
from rltrain.config.application import compose
from rltrain.config.plain import to_plain
from rltrain.config.validate import validate
from rltrain.config.wrappers import FrameStackConfig, TimeAwareConfig
from rltrain.errors import RequestError


def test_names_and_arguments_become_typed_entries_and_plain_data_again() -> None:
    config, _ = compose(["tuned=none", "env.wrappers=[time_aware,{name: frame_stack, size: 2}]"])
    assert config.env.wrappers == (TimeAwareConfig("time_aware"), FrameStackConfig("frame_stack", 2, "reset"))
    plain = to_plain(config)
    assert plain["env"]["wrappers"][1] == {"name": "frame_stack", "size": 2, "padding": "reset"}
    assert validate(plain) == config


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("time_aware", r"env.wrappers=time_aware: must be a list, such as \[time_aware\]"),
        ("[time_awar]", r"env.wrappers\[0\]=time_awar: no such wrapper; did you mean time_aware\?"),
        ("[time_aware,{name: frame_stack, siz: 4}]", r"env.wrappers\[1\].siz: unknown key .*did you mean size\?"),
        ("[{name: frame_stack, size: 1}]", r"env.wrappers\[0\].size=1: must be >= 2"),
        ("[{name: frame_stack, size: many}]", r"env.wrappers\[0\].size=many: must be an integer"),
        ("[{name: frame_stack, padding: ones}]", r"env.wrappers\[0\].padding=ones: must be reset or zero"),
        ("[{name: normalize_reward, gamma: 2}]", r"gamma=2: must be >= 0 and <= 1"),
        ("[{size: 4}]", r"must be a wrapper's name, or \{name: ..., argument: value\}"),
        ("[3]", r"env.wrappers\[0\]=3: must be a wrapper's name"),
        ("[time_aware,atari]", r"env.wrappers\[1\]=atari: must be the first"),
        ("[{name: clip_observation, low: 1, high: 0}]", "low=1 is not below high=0"),
        ("[{name: rescale_observation, high: -1}]", "rescale_observation is .* low=-1 is not below high=-1"),
        ("[{name: rescale_observation, high: 1e300}]", "high"),
        ("[clip_action]", "there is no such wrapper; always done: an agent's -1..1 spans the bounds"),
        ("[clip_reward]", "use env.reward_clip=1"),
        ("[{name: time_aware, _target_: os.system}]", "_target_: unknown key"),
    ],
)
def test_what_is_wrong_is_named(value: str, text: str) -> None:
    with pytest.raises(RequestError, match=text) as caught:
        compose(["tuned=none", f"env.wrappers={value}"])
    assert len(str(caught.value).splitlines()) <= 3


def test_a_list_and_completion_know_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_main(["wrappers", "stack"]) == 0
    assert capsys.readouterr().out.startswith("frame_stack  The last `size` observations;")
    assert _wrappers("time_aware,norm") == [
        "env.wrappers=[time_aware,normalize_observation]", "env.wrappers=[time_aware,normalize_reward]",
    ]  # fmt: skip
