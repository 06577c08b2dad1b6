"""Work in other processes: results in order, progress, an error once all have ended, and the threads of each."""

from functools import partial

import pytest
import torch

from vgid.demo.workers import Workers, share_of_cores, threads
from vgid.errors import ConfigError
from vgid.progress import Progress


def counted(to: int, progress: Progress) -> tuple[int, int]:
    for number in range(to):
        progress(number + 1, to)
    return to, torch.get_num_threads()


def failing(progress: Progress) -> None:
    progress(1, 2)
    raise ConfigError("it failed")


def test_calls_return_in_order_and_tell_how_far_they_are() -> None:
    told: list[list[tuple[int, int]]] = [[], []]
    with Workers(2, threads=1) as workers:
        for to in (3, 2):
            workers.start(partial(counted, to))
        assert workers.finish([lambda *each: told[0].append(each), lambda *each: told[1].append(each)]) == [(3, 1), (2, 1)]
    assert told == [[(1, 3), (2, 3), (3, 3)], [(1, 2), (2, 2)]]


def test_an_error_is_raised_once_all_have_ended() -> None:
    told: list[tuple[int, int]] = []
    with Workers(1) as workers:
        workers.start(failing)
        workers.start(partial(counted, 2))
        with pytest.raises(ConfigError, match="it failed"):
            workers.finish([lambda *_: None, lambda *each: told.append(each)])
    assert told == [(1, 2), (2, 2)]


def test_threads_are_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
    monkeypatch.setattr("os.cpu_count", lambda: 9)
    assert (share_of_cores(2), share_of_cores(20)) == (4, 1)
