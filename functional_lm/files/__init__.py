"""Files written so that they survive anything, and files from outside read without trust.

Whatever a file holds, reading it gives a value or one exception, `FileFormatError`: nothing in it
can crash, hang or exhaust the memory.
"""

from .fault import FileFormatError
from .json_file import parse_json, read_json
from .tensors import Tensors, read_tensors
from .text import known_encoding, read_text
from .toml_file import read_toml
from .writing import remove_stale, write_atomic

__all__ = [
    "FileFormatError",
    "Tensors",
    "known_encoding",
    "parse_json",
    "read_json",
    "read_tensors",
    "read_text",
    "read_toml",
    "remove_stale",
    "write_atomic",
]
