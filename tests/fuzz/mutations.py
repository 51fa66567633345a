"""Damage done to valid files: in bytes, in what a text is made of, and in a tar's headers."""

import re
import tarfile
from random import Random

from targets import TARGETS

# What stands in the place of a word, a number or a sign.
TOKENS = [
    *(b"", b"0", b"-1", b"1", b"3", b"1.5", b"1e999", b"-0.0", b"nan", b"NaN", b"inf", b"Infinity"),
    *(b"2147483648", b"-9223372036854775809", b"1" + b"0" * 400, b"9" * 5000, b"0x10", b"1_0"),
    *(b"null", b"true", b"false", b"none", b"None", b'""', b"''", b'"\\ud800"', b'"a\\u0000b"'),
    *(b"[]", b"{}", b"[[1]]", b'{"a": 1}', b'["a"]', b"()", b"[" * 100_000, b'{"a":' * 100_000),
    *(b",", b":", b"=", b"\n", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(b"F64", b"I64", b"BOOL", b"U8", b"F8_E4M3", b"BF16", b"C64", b"<f8", b"|O", b"<U9"),
]
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)
_TEXT = 4096  # bytes of a file, from its beginning, that are taken for text
# Field, offset and length in a header of a tar.
_FIELDS = {"name": (0, 100), "size": (124, 12), "time": (136, 12), "type": (156, 1)}
_FIELDS |= {"link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}
_VALUES = {
    "name": [b"", b"../../a.jpg", b"/a.jpg", b"\xff.txt", b"a", b".jpg", b"0.jpg", b"\x01.txt"],
    "size": [b"00000000000\0", b"77777777777\0", b"00000000777\0", b"-0000000777\0", b"x" * 12],
    "type": [bytes([kind]) for kind in b"0123456789SLKxgVDMNZ\0\xff"],
    "magic": [b"ustar  \0", b"ustar\x0000", b"\0" * 8],
}
# The largest and the smallest numbers of the binary notation.
_VALUES["size"] += [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\xff" + b"\0" * 11]
_VALUES["size"] += [b"\xff" * 10 + b"\xfe\0", b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7]


def mutated(name: str, random: Random) -> bytes:
    """A seed of a target after some changes, its checksums made right in most cases."""
    target = TARGETS[name]
    data = random.choice(target.seeds())
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        data = change(data, random)
    return target.repair(data) if target.repair and random.random() < 0.8 else data


def change(data: bytes, random: Random) -> bytes:
    """One change."""
    if b"ustar" in data[257:2000] and random.random() < 0.6:
        return _in_header(data, random)
    return random.choice([_in_bytes, _in_text, _in_text])(data, random)


def _in_bytes(data: bytes, random: Random) -> bytes:
    # Squared: half of the changes fall into the first quarter, where the headers are.
    at = int(random.random() ** 2 * len(data))
    end = at + random.choice([1, 1, 2, 4, 8, 40])
    kept = data[:at], data[at:end], data[end:]
    which = random.randrange(5)
    if which == 0:
        return kept[0] + kept[2]
    if which == 1:
        return kept[0] + kept[1] * random.choice([2, 3, 100]) + kept[2]
    if which == 2:
        return kept[0] + random.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * (end - at) + kept[2]
    if which == 3:
        return kept[0] + random.randbytes(end - at) + kept[2]
    return kept[0]


def _in_text(data: bytes, random: Random) -> bytes:
    tokens = list(_TOKEN.finditer(data[:_TEXT]))
    if not tokens:
        return random.choice(TOKENS)
    chosen = random.choice(tokens)
    if random.random() < 0.2:  # another of the file's own
        new = random.choice(tokens)[0]
    else:
        new = random.choice(TOKENS)
        if chosen[0].startswith(b'"') and random.random() < 0.3:
            new = b'"' + new.strip(b'"') + b'"'
    return data[: chosen.start()] + new + data[chosen.end() :]


def _in_header(data: bytes, random: Random) -> bytes:
    size = tarfile.BLOCKSIZE
    headers = [at for at in range(0, len(data), size) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return data
    at = random.choice(headers)
    if random.random() < 0.15:  # a header again, many times or once
        return data[:at] + data[at : at + size] * random.choice([2, 1200]) + data[at + size :]
    field = random.choice(list(_FIELDS))
    start, length = _FIELDS[field]
    value = random.choice(_VALUES.get(field, [b"", b"\xff" * 100, b"x" * 200]))[:length]
    return data[: at + start] + value.ljust(length, b"\0") + data[at + start + length :]
