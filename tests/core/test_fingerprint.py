"""Stored manifests and servers' labels hold fingerprints, so their form is fixed."""

from services.core.fingerprint import fingerprint


def test_a_fingerprint_has_16_hex_digits_whatever_the_order_of_the_keys():
    assert fingerprint({"b": 1, "a": ["ü"]}) == fingerprint({"a": ["ü"], "b": 1})
    assert fingerprint({"a": 1}) == "f9d86028c6e0d64e"
