"""Where benchmarks find the MicroLens-50k files, or a small catalogue in their format."""

import argparse
import os
from pathlib import Path

from benchmarks.support.synthetic_catalogue import write_microlens
from services.core.errors import InputError

NUM_ITEMS, NUM_USERS = 100, 120


def add_options(parser: argparse.ArgumentParser) -> None:
    """The folder as an argument or in MSR_MICROLENS, or `--made-up`."""
    parser.add_argument("folder", nargs="?", default=os.environ.get("MSR_MICROLENS"))
    parser.add_argument("--made-up", action="store_true", help="a small made-up catalogue instead")


def folder(options: argparse.Namespace, work: Path) -> str:
    """The folder that holds the files; InputError if none is named."""
    if options.made_up:
        return write_microlens(work / "microlens", num_items=NUM_ITEMS, num_users=NUM_USERS)
    if options.folder is None:
        raise InputError("name the folder of the MicroLens files, or set MSR_MICROLENS")
    return str(options.folder)
