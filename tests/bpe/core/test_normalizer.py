"""The core's normalizer gives what Hugging Face's tokenizers gives, and may be applied to the parts of a text."""

from __future__ import annotations

from random import Random

from tokenizers import normalizers

from bpe import _core


def _text(random: Random, letters: str, longest: int) -> str:
    return "".join(random.choice(letters) for _ in range(random.randrange(longest + 1)))


def test_replacing_and_prepending_strings_equals_the_reference_also_in_parts() -> None:
    random = Random(1)
    cuts = 0
    for _ in range(5000):
        pattern, content, front = _text(random, "abé ", 2), _text(random, "abé ▁", 2), _text(random, "a▁", 2)
        text = _text(random, "abé ▁", 7)
        reference = normalizers.Sequence([normalizers.Replace(pattern, content), normalizers.Prepend(front)])
        core = _core.Normalizer([("replace", pattern.encode(), content.encode()), ("prepend", front.encode())])
        expected = reference.normalize_str(text).encode()
        assert core.apply(text) == expected, (pattern, content, front, text)
        for cut in core.cuts(text):
            left, right = text.encode()[:cut], text.encode()[cut:]
            assert core.apply(left) + core.apply(right, at_start=False) == expected, (pattern, content, text, cut)
            cuts += 1
    assert cuts > 1000
