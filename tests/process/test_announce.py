"""The line by which a program says that it answers."""

import io

import pytest

from services.process.announce import announce, is_loopback, wait_until_listening


def test_the_address_is_read_back_from_between_other_output(capsys: pytest.CaptureFixture[str]):
    announce("http://127.0.0.1:8123")
    printed = "the command\n" + capsys.readouterr().out + "more\n"

    assert wait_until_listening(io.StringIO(printed)) == "http://127.0.0.1:8123"


def test_a_program_that_ends_before_it_listens_has_no_address():
    assert wait_until_listening(io.StringIO("it failed\n")) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_host_that_only_this_machine_reaches_is_known(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "msr.example"])
def test_a_host_that_others_reach_is_known(host: str):
    assert not is_loopback(host)
