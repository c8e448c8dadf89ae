"""Proposers: which tokens are proposed, against a plain search for the longest match."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from model.generation import proposers
from model.generation.proposers import DraftProposer, Index, LayersProposer, NgramProposer
from model.generation.sequences import Part
from support.toy_sequences import ToySequences, logits_of


def longest_match(ids: Sequence[int]) -> tuple[int, int]:
    """Return the latest of the places before which the most tokens equal the end of a text, and how many."""
    best, length = 0, 0
    for place in range(len(ids) - 1, 0, -1):
        same = 0
        while same < min(place, proposers._LONGEST) and ids[place - same - 1] == ids[len(ids) - same - 1]:
            same += 1
        if same > length:
            best, length = place, same
    return best, length


@pytest.mark.parametrize("seed", range(20))
def test_the_index_finds_the_longest_match(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposers, "_CANDIDATES", 1000)
    monkeypatch.setattr(proposers, "_MOST_RESUMED", 0)
    choose = random.Random(seed)
    index, ids = Index(), []
    for _ in range(choose.choice([5, 30, 60])):
        copies = ids and choose.random() < 0.5
        start = choose.randrange(len(ids)) if copies else 0
        for id in [*ids[start : start + choose.randint(1, 30)]] if copies else [choose.randrange(6)]:
            ids.append(id)
            index.add(id)
            assert index.find() == longest_match(ids)


def test_an_empty_text_and_new_tokens_match_nothing() -> None:
    index = Index()
    assert index.find() == (0, 0)
    for id in range(5):
        index.add(id)
        assert index.find() == (0, 0)


def test_a_copy_continues_with_itself_behind_the_end() -> None:
    index = Index()
    for id in [1, 2, 3, 1, 2, 3]:
        index.add(id)
    place, length = index.find()
    assert length == 3
    assert index.copied(place, 8) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_a_text_with_a_replaced_token_follows_its_source() -> None:
    source = list(range(10, 30))
    proposer = NgramProposer()
    proposer.start(0, [*source, 1])
    for id in source[:14]:
        proposer.add(0, id)
        proposer.outlook(0, 4)
    assert proposer.propose({0: 4}) == {0: source[14:18]}
    proposer.add(0, 99)  # instead of source[14]
    assert proposer.outlook(0, 4)
    assert proposer.propose({0: 4}) == {0: source[15:19]}
    proposer.add(0, 98)  # a second one at once: the text has left its source
    assert proposer.outlook(0, 4) == []


def test_many_places_of_one_pair_are_not_all_searched() -> None:
    index = Index()
    for _ in range(20_000):  # would take minutes if each search compared all places
        index.add(7)
        index.find()
    assert index.copied(index.find()[0], 3) == [7, 7, 7]


def test_texts_do_not_share_matches() -> None:
    proposer = NgramProposer()
    proposer.start(0, [1, 2, 3, 1, 2])
    proposer.start(1, [1, 2, 4, 1, 2])
    assert [len(proposer.outlook(text, 2)) for text in (0, 1)] == [2, 2]
    assert proposer.propose({0: 1, 1: 1}) == {0: [3], 1: [4]}
    proposer.end(0)
    assert proposer.outlook(1, 1)


class Draft(ToySequences):
    """A draft model that reserves memory itself."""

    def read(self, parts):  # type: ignore[no-untyped-def]
        for part in parts:
            self.reserve(part.sequence, len(self.texts[part.sequence]) + len(part.ids))
        return super().read(parts)


def greedy(ids: Sequence[int], count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        found.append(int(np.argmax(logits_of([*ids, *found]))))
    return found


def test_a_draft_model_proposes_what_it_finds_likeliest() -> None:
    sequences = Draft(2)
    proposer = DraftProposer(sequences, 24, 64, 24, 8)
    texts = {0: [1, 2, 3], 1: [4]}
    choose = random.Random(0)
    for text, ids in texts.items():
        proposer.start(text, ids)
    for _ in range(12):
        counts = {text: min(choose.randint(0, 5), len(proposer.outlook(text, 5))) for text in texts}
        proposals = proposer.propose(counts)
        for text, ids in texts.items():
            assert proposals[text] == greedy(ids, counts[text])
            for id in [*proposals[text][: choose.randint(0, 5)], choose.randrange(24)]:
                ids.append(id)
                proposer.add(text, id)


def test_a_draft_model_reads_only_what_is_new() -> None:
    sequences = Draft(1)
    proposer = DraftProposer(sequences, 24, 64, 24, 8)
    proposer.start(0, [1, 2, 3, 4])
    proposer.propose({0: 3})
    sequences.calls.clear()
    for id in (20, 21):
        proposer.add(0, id)
    proposer.propose({0: 1})
    assert [list(part.ids) for call in sequences.calls for part in call] == [[20, 21]]
    proposer.start(0, [1, 2, 3, 4, 20, 5, 6])  # the next turn of a dialog
    sequences.calls.clear()
    proposer.propose({0: 1})
    assert [list(part.ids) for call in sequences.calls for part in call] == [[6]]


class FirstLayers(Draft):
    """A model whose first layers know only the last token."""

    def read(self, parts, layers=None):  # type: ignore[no-untyped-def]
        logits = super().read(parts)
        return logits if layers is None else np.stack([logits_of([part.ids[-1], layers]) for part in parts])


def test_the_first_layers_propose_and_leave_no_trace() -> None:
    sequences = FirstLayers(2)
    proposer = LayersProposer(sequences, 3, 24, 8)
    for text, ids in {0: [1, 2], 1: [3]}.items():
        sequences.read([Part(text, ids)])
        proposer.start(text, [*ids, 9])
    expected, last = [], 9
    for _ in range(4):
        last = int(np.argmax(logits_of([last, 3])))
        expected.append(last)
    assert len(proposer.outlook(0, 5)) == 5
    assert proposer.propose({0: 4, 1: 2}) == {0: expected, 1: expected[:2]}
    assert [sequences.length(text) for text in (0, 1)] == [2, 1]


def test_a_draft_model_proposes_nothing_beyond_its_context() -> None:
    proposer = DraftProposer(Draft(1), 24, 6, 24, 8)
    proposer.start(0, [1, 2, 3, 4])
    assert len(proposer.outlook(0, 8)) == 2
    for id in (1, 2, 3):
        proposer.add(0, id)
    assert proposer.outlook(0, 8) == []
    proposer.start(0, list(range(9)))
    assert proposer.outlook(0, 8) == []


def test_a_draft_model_proposes_nothing_after_an_id_that_it_lacks() -> None:
    proposer = DraftProposer(Draft(1), 24, 64, 24, 8)
    proposer.start(0, [1, 30, 2])
    assert proposer.outlook(0, 8) == []
