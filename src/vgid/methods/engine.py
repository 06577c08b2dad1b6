"""One place that decides the forward passes of a step: methods state terms, the engine gives each term its rows' outputs.

A term says which rows it is about, what model and base must say about them, and how a value for each row follows. The engine puts all rows
of a step that meet the same model state (with or without the relearning adversary) into one pass, whatever term asks about them, asks the
frozen base for everything in one pass without gradients, and computes positions and indices on the CPU before anything is moved.

Shapes: b rows of a term, n answer tokens, t aligned positions, v vocabulary, h hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vgid.data.batching import Batch, EncodedRow, Encoder
from vgid.data.example import Example
from vgid.data.packing import Positions, Style
from vgid.memory import to_device
from vgid.methods.cutting import WHOLE, Cut, bucket, of_similar_length, that_fit
from vgid.models.adapters import reference
from vgid.models.forward import answer_logits, logits_and_states
from vgid.models.packing import with_positions
from vgid.models.pictures import Pictures, without_pixels

Examples = tuple[Example, ...]
Role = Literal["model", "base"]
WITHOUT_GRADIENTS = 8
"""Tokens of a pass of the base, for each that a pass with gradients may have: nothing is kept of its layers. Chosen by hand."""


@dataclass(frozen=True)
class View:
    """How rows are encoded for one side of a comparison.

    Attributes:
        key: rows of views with equal keys see the same pictures in the same way, so that they may share a packed row.
        encode: from one example and its answer ("" for the recorded one) to the encoded row.
    """

    key: Hashable
    encode: Callable[[Example, str], EncodedRow]


class Kept(Protocol):
    """Outputs of the base that are computed once and used in every epoch (`vgid.methods.common.targets`)."""

    def logits(self, base: Any, examples: Sequence[Example]) -> Tensor:
        """Logits `[n, v]` at the answer positions of all examples, in their order."""


@dataclass(frozen=True)
class Ask:
    """What one side of a comparison must say about a term's rows.

    Attributes:
        of: `model` for the model in training, with gradients; `base` for the frozen base, without.
        answers: answers at which logits are needed, one for each row; None for the recorded ones.
        view: how rows are encoded; None for the plain question.
        kept: where the base's outputs are kept between steps; None computes them anew.
    """

    of: Role
    answers: tuple[str, ...] | None = None
    view: View | None = None
    kept: Kept | None = None


class Said(NamedTuple):
    """What one side says about some rows of a term.

    Attributes:
        logits: `[n, v]`, at answer positions.
        targets: int64 `[n]`, the answer tokens.
        owners: int64 `[n]`, in [0, b): the row of each answer token.
        rows: b.
        places: which rows of the term these are: places in `Term.rows`, since a pass may hold some of a term's rows only.
        states: outputs `[l, t, h]` of the l layers that the term compares, at aligned positions; None without.
        state_owners: int64 `[t]`, the row of each aligned position.
    """

    logits: Tensor
    targets: Tensor
    owners: Tensor
    rows: int
    places: tuple[int, ...] = ()
    states: Tensor | None = None
    state_owners: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """Mean of token values `[n]` for each row, `[b]`: E[mean_t ...] of the papers, where long answers weigh no more than short ones."""
        return mean_by_owner(values, self.owners, self.rows)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of token values `[n]` for each row, `[b]`."""
        return values.new_zeros(self.rows).index_add(0, self.owners, values)


def mean_by_owner(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Average values for each owner.

    Args:
        values: `[k]`.
        owners: int64 `[k]`, in [0, count).
        count: number of owners.

    Returns:
        `[count]`; 0 for an owner without values.
    """
    ones = values.new_zeros(count).index_add(0, owners, torch.ones_like(values))
    return values.new_zeros(count).index_add(0, owners, values) / ones.clamp(min=1.0)


@dataclass(frozen=True)
class Term:
    """A part of a step's loss: a mean over rows of a value that follows from what model and base say about a row.

    Attributes:
        part: name of the part of the loss, for curves; terms of one part add up.
        rows: rows of the term.
        asks: what is needed of each row; at least one of the model.
        value: from one `Said` for each ask to the value of each row, `[b]`.
        weight: weight of the part in the loss.
        among: the sum over rows is divided by this number; None for the number of rows.
        attacked: the model is asked with the relearning adversary active.
        compare: two places in `asks`, first the model's, whose hidden states are compared where both read the same tokens.
    """

    part: str
    rows: Examples
    asks: tuple[Ask, ...]
    value: Callable[..., Tensor]
    weight: float = 1.0
    among: int | None = None
    attacked: bool = False
    compare: tuple[int, int] | None = None


@dataclass(frozen=True)
class PassLoss:
    """The loss of one pass with gradients.

    Attributes:
        total: scalar to differentiate before the next pass begins, since layers may run again for their gradients.
        parts: part of the loss to its share in this pass, detached and unweighted.
        attacked: the relearning adversary is active.
    """

    total: Tensor
    parts: dict[str, Tensor]
    attacked: bool


@dataclass(frozen=True)
class Machine:
    """What the engine needs besides terms.

    Attributes:
        encoder: encoder of the model.
        device: device of the model.
        packing: how questions about one picture share a row; None for one row each.
        reference_copy: the frozen base, where all parameters are trained.
        layers: decoder layers of a model whose outputs terms compare.
        active: context in which the relearning adversary changes the model.
        pictures: embeddings of pictures, where vision tower and projector are frozen.
        cut: how rows of one kind are cut into passes.
    """

    encoder: Encoder
    device: torch.device
    packing: Style | None = None
    reference_copy: nn.Module | None = None
    layers: Callable[[Any], Sequence[nn.Module]] | None = None
    active: Callable[[], AbstractContextManager[Any]] = nullcontext
    pictures: Pictures | None = None
    cut: Cut = WHOLE


@dataclass(eq=False)
class _Request:
    """One row that one side must be asked; several terms may wait for it."""

    example: Example
    row: EncodedRow
    key: Hashable
    aligned: list[range]
    """Positions in the row of its own at which hidden states are needed, one entry for each term that compares them."""


class _Unit(NamedTuple):
    """One row of a term with a request for each ask; None where the base's outputs are kept."""

    term: int
    place: int
    requests: tuple[_Request | None, ...]


class Plan:
    """All of a step that needs no model: encoded rows, batches and positions, on the CPU. It serves one step, once.

    Args:
        terms: terms of the step; those without rows are ignored.
        machine: encoder, device, packing and adapters.
    """

    def __init__(self, terms: Sequence[Term], machine: Machine) -> None:
        self.machine, self.collected = machine, _Collected(terms, machine)
        groups = self.collected.groups()
        # All batches and positions before the first pass: the base is asked once, for everything.
        self.targets = _BaseOutputs(self.collected, machine)
        self.passes = [(attacked, units, _Joined(_own_requests(self.collected, units), machine)) for attacked, units in groups]
        for _, units, joined in self.passes:
            _plan_states(self.collected, units, joined, self.targets)

    def pin(self) -> None:
        """Put batches and changed pictures into pinned memory, from which a GPU fetches them while the host goes on."""
        for joined in (*self.targets.batches, *(joined for _, _, joined in self.passes)):
            joined.pin()


def passes(model: Any, plan: Plan) -> Iterator[PassLoss]:
    """Compute the loss of a step in as few passes with gradients as there are model states and kinds of rows, if `Machine.cut` allows.

    Between two values of the iterator the caller differentiates the first one: the state of the model lasts until then.

    Args:
        model: the model in training.
        plan: the plan of the step.

    Yields:
        The loss of each pass; the loss of the step is their sum.
    """
    if not plan.passes:
        return
    plan.targets.ask(model, [units for _, units, _ in plan.passes])
    for number, (attacked, units, joined) in enumerate(plan.passes):
        with plan.machine.active() if attacked else nullcontext():
            yield _run(model, plan.collected, number, units, joined, plan.targets, plan.machine, attacked)


def pass_tokens(terms: Sequence[Term], machine: Machine) -> list[int]:
    """Tokens of each pass with gradients, padding included, as `passes` would take them.

    Args:
        terms: terms of the step.
        machine: encoder, packing, and how rows are cut into passes.

    Returns:
        One number for each pass.
    """
    collected = _Collected(terms, machine)
    return [_tokens(_own_requests(collected, units), machine) for _, units in collected.groups()]


class _Collected:
    """All requests of a step, each row once for each state, view and answer."""

    def __init__(self, terms: Sequence[Term], machine: Machine) -> None:
        self.terms, self._machine = terms, machine
        self._known: dict[Hashable, _Request] = {}
        self.model: dict[int, bool] = {}
        self.base: list[_Request] = []
        self.units = [unit for number, term in enumerate(terms) for unit in self._units(number, term)]

    def _units(self, number: int, term: Term) -> Iterator[_Unit]:
        for place, example in enumerate(term.rows):
            requests = tuple(None if ask.kept is not None else self._request(term, ask, place, example) for ask in term.asks)
            if term.compare:
                first, second = (requests[index] for index in term.compare)
                assert first is not None and second is not None
                one, other = aligned(first.row, second.row, self._machine.encoder.image_marks)
                first.aligned.append(one)
                second.aligned.append(other)
            yield _Unit(number, place, requests)

    def _request(self, term: Term, ask: Ask, place: int, example: Example) -> _Request:
        answer = ask.answers[place] if ask.answers is not None else ""
        view = ask.view.key if ask.view else None
        # Hidden states are taken for one term, so a row whose states are compared is not shared with another term.
        own = (id(term), place) if term.compare else None
        known = (ask.of, term.attacked and ask.of == "model", view, example.id, answer, own)
        if known not in self._known:
            row = ask.view.encode(example, answer) if ask.view else self._machine.encoder.row(example, answer=answer)
            self._known[known] = _Request(example, row, view, [])
            if ask.of == "base":
                self.base.append(self._known[known])
        return self._known[known]

    def groups(self) -> list[tuple[bool, list[_Unit]]]:
        """Units that go through the model together: the same state, with pictures and without apart (padded to one length, a text-only row
        would cost as much as one with a picture)."""
        found: dict[tuple[bool, bool], list[_Unit]] = {}
        for unit in self.units:
            term = self.terms[unit.term]
            found.setdefault((term.attacked, bool(term.rows[unit.place].images)), []).append(unit)
        kinds = sorted(found.items(), key=lambda item: (item[0][0], not item[0][1]))
        return [
            (attacked, [units[number] for number in piece])
            for (attacked, _), units in kinds
            for piece in _pieces([_own_requests(self, [unit]) for unit in units], self._machine, self._machine.cut)
        ]

    def base_groups(self) -> list[list[_Request]]:
        """What the base is asked together; it takes more tokens at once than a pass with gradients."""
        most = self._machine.cut.most
        cut = self._machine.cut._replace(most=most and most * WITHOUT_GRADIENTS)
        kinds = [[each for each in self.base if bool(each.example.images) is seen] for seen in (True, False)]
        return [
            [requests[number] for number in piece]
            for requests in kinds
            for piece in _pieces([[request] for request in requests], self._machine, cut)
        ]


def _sharing(requests: Sequence[_Request]) -> list[Hashable]:
    """Requests with equal keys may share a packed row."""
    return [(each.key, each.example.images or each.example.question) for each in requests]


def _lengths(requests: Sequence[_Request], machine: Machine) -> list[tuple[tuple[int, ...], int]]:
    """The rows that requests make in one pass: places in `requests`, and tokens."""
    rows = [each.row for each in requests]
    if machine.packing is None:
        return [((number,), len(row.text["input_ids"])) for number, row in enumerate(rows)]
    layouts = machine.encoder.layouts(rows, [each.example for each in requests], machine.packing, _sharing(requests))
    return [(layout.members, layout.length) for layout in layouts]


def _tokens(requests: Sequence[_Request], machine: Machine) -> int:
    """Tokens of some requests in one pass, padding included."""
    found = _lengths(requests, machine)
    longest = max(length for _, length in found)
    return len(found) * (bucket(longest) if machine.cut.buckets else longest)


def _pieces(items: Sequence[Sequence[_Request]], machine: Machine, cut: Cut) -> list[list[int]]:
    """Cut items, each with requests that must be in the same pass, into passes: places in `items`, in order."""
    if not items or (cut.most is None and cut.worth is None):
        return [list(range(len(items)))] if items else []
    requests = list({id(each): each for item in items for each in item}.values())
    place = {id(each): number for number, each in enumerate(requests)}
    rows = sorted(_lengths(requests, machine), key=lambda row: row[1])
    row_of = {member: number for number, (members, _) in enumerate(rows) for member in members}
    # Items of one packed row are neighbours; one with several rows goes with the longest.
    at = [max(row_of[place[id(each)]] for each in item) for item in items]

    def tokens(chosen: Sequence[int]) -> int:
        return _tokens(list({id(each): each for number in chosen for each in items[number]}.values()), machine)

    pieces = []
    for alike in of_similar_length([length for _, length in rows], cut.worth):
        chosen = sorted((number for number in range(len(items)) if at[number] in alike), key=lambda number: (at[number], number))
        pieces += [sorted(piece) for piece in that_fit(chosen, tokens, cut.most)]
    return pieces


class _Joined:
    """Requests in one batch on the device, with the places of every request's outputs, worked out on the CPU."""

    def __init__(self, requests: Sequence[_Request], machine: Machine) -> None:
        rows, encoder = [each.row for each in requests], machine.encoder
        examples = [each.example for each in requests]
        pictures = machine.pictures
        shown = [without_pixels(row) for row in rows] if pictures else rows
        width = bucket if machine.cut.buckets else None
        if machine.packing:
            batch = encoder.pack(shown, examples, machine.packing, _sharing(requests), width)
        else:
            batch = encoder.collate(shown, width=width)
        lengths = [len(each.row.text["input_ids"]) - each.row.prompt_length for each in requests]
        self.place = {id(each): number for number, each in enumerate(requests)}
        self.starts = [0, *accumulate(lengths)]
        self.placements = batch.placements
        self.requests, self.device, self._pictures = requests, machine.device, pictures
        self.batch, self.targets = batch, batch.answers.targets.numpy()
        self.state_rows: list[int] = []
        self.state_positions: list[Positions] = []
        self.state_starts: dict[int, tuple[int, int]] = {}

    def wanted_states(self, request: _Request, positions: range) -> None:
        """Ask for hidden states at positions of a request's own row."""
        number = self.place[id(request)]
        placement = self.placements[number]
        start = len(self.state_rows)
        self.state_positions.append(placement.positions(np.array(positions)))
        self.state_rows += [placement.row] * len(positions)
        self.state_starts[number] = (start, start + len(positions))

    def shared(self, request: _Request) -> int:
        """Tokens that the request's packed row shares between its questions; 0 for a row of its own."""
        return self.placements[self.place[id(request)]].prefix

    def run(self, model: Any, layers: Sequence[nn.Module]) -> tuple[Tensor, Tensor | None]:
        """Logits `[n, v]` of all answers, and the layers' outputs `[l, t, h]` where they were asked for."""
        batch = with_positions(model, self._embedded()).to(self.device)
        if not self.state_positions or not layers:
            return answer_logits(model, batch), None
        rows, positions = self.moved(np.array(self.state_rows), np.concatenate(self.state_positions))
        logits, states = logits_and_states(model, batch, layers, rows, positions)
        return logits, torch.stack(states)

    def _embedded(self) -> Batch:
        """The batch with its pictures embedded: those that examples have are kept; those that a view changes are seen once."""
        if self._pictures is None:
            return self.batch
        first = {placement.row: request for placement, request in zip(self.placements[::-1], self.requests[::-1], strict=True)}
        seen = [first[row] for row in sorted(first) if first[row].row.images]
        changed = iter(self._pictures.each([request.row for request in seen if request.key is not None]))
        kept = iter(self._pictures.kept([(each.example.images, each.row) for each in seen if each.key is None]))
        return self._pictures.put(self.batch, [next(kept if each.key is None else changed) for each in seen])

    def pin(self) -> None:
        """Put the batch, and pictures that a view changes, into pinned memory."""
        self.batch = self.batch.pinned()
        if self._pictures:
            for request in self.requests:
                if request.key is not None and request.row.images:
                    images = {name: value.pin_memory() for name, value in request.row.images.items()}
                    request.row = replace(request.row, images=images)

    def moved(self, *indices: Positions) -> list[Tensor]:
        """Indices on the device."""
        return [to_device(torch.from_numpy(each), self.device) for each in indices]


class _BaseOutputs:
    """What the frozen base says to all that a step asks it, in as few passes as `machine.cut` allows."""

    def __init__(self, collected: _Collected, machine: Machine) -> None:
        self._collected, self._machine = collected, machine
        self._outputs: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._kept: dict[tuple[int, int, int], Tensor] = {}
        self.batches = [_Joined(requests, machine) for requests in collected.base_groups()]
        self._by_request = {id(each): joined for joined in self.batches for each in joined.requests}

    def ask(self, model: Any, groups: Sequence[Sequence[_Unit]]) -> None:
        """Run the base on everything, and look up what is kept between steps.

        Args:
            model: the model in training.
            groups: units of each pass with gradients.
        """
        if not self.batches and not any(ask.kept for term in self._collected.terms for ask in term.asks):
            return
        with reference(model, copy=self._machine.reference_copy) as base:
            layers = self._machine.layers(base) if self._machine.layers else ()
            for joined in self.batches:
                self._outputs[id(joined)] = joined.run(base, layers)
            for number, units in enumerate(groups):
                for term, rows in _rows_by_term(self._collected, units).items():
                    for place, ask in enumerate(self._collected.terms[term].asks):
                        if ask.kept is not None:
                            self._kept[number, term, place] = ask.kept.logits(base, rows)

    def joined(self, request: _Request) -> _Joined:
        """The batch that a request is in."""
        return self._by_request[id(request)]

    def said(self, requests: Sequence[_Request], *, compared: bool) -> Said:
        """What the base says about some requests, which may be in several batches."""
        batches = {id(joined): joined for joined in map(self.joined, requests)}
        if len(batches) == 1:
            ((key, joined),) = batches.items()
            return _said(joined, requests, *self._outputs[key], compared=compared)
        places = {key: [n for n, each in enumerate(requests) if id(self.joined(each)) == key] for key in batches}
        parts = [
            _said(joined, [requests[n] for n in places[key]], *self._outputs[key], compared=compared) for key, joined in batches.items()
        ]
        return _in_order(parts, list(places.values()))

    def kept(self, group: int, term: int, place: int) -> Tensor:
        """Logits that are kept between steps, for a term's rows in a pass."""
        return self._kept[group, term, place]


def _rows_by_term(collected: _Collected, units: Sequence[_Unit]) -> dict[int, list[Example]]:
    """Rows of each term among some units, in order."""
    found: dict[int, list[Example]] = {}
    for unit in units:
        found.setdefault(unit.term, []).append(collected.terms[unit.term].rows[unit.place])
    return found


def _own_requests(collected: _Collected, units: Sequence[_Unit]) -> list[_Request]:
    """What the model is asked about some units, each request once."""
    found: dict[int, _Request] = {}
    for unit in units:
        for request, ask in zip(unit.requests, collected.terms[unit.term].asks, strict=True):
            if ask.of == "model" and request is not None:
                found[id(request)] = request
    return list(found.values())


def _run(
    model: Any,
    collected: _Collected,
    group: int,
    units: Sequence[_Unit],
    joined: _Joined,
    targets: _BaseOutputs,
    machine: Machine,
    attacked: bool,
) -> PassLoss:
    layers = machine.layers(model) if machine.layers else ()
    logits, states = joined.run(model, layers)
    total, parts = None, dict[str, Tensor]()
    for number in dict.fromkeys(unit.term for unit in units):
        term = collected.terms[number]
        mine = [unit for unit in units if unit.term == number]
        said = []
        for index, ask in enumerate(term.asks):
            if ask.kept is not None:
                none = torch.empty(0, dtype=torch.long, device=machine.device)
                said.append(Said(targets.kept(group, number, index), none, none, len(mine)))
                continue
            requests = [request for unit in mine if (request := unit.requests[index]) is not None]
            compared = term.compare is not None and index in term.compare
            if ask.of == "model":
                said.append(_said(joined, requests, logits, states, compared=compared))
            else:
                said.append(targets.said(requests, compared=compared))
        places = tuple(unit.place for unit in mine)
        values = term.value(*(each._replace(places=places) for each in said))
        share = values.sum() / (term.among if term.among is not None else len(term.rows))
        total = term.weight * share if total is None else total + term.weight * share
        parts[term.part] = parts[term.part] + share.detach() if term.part in parts else share.detach()
    assert total is not None
    return PassLoss(total, parts, attacked)


def _plan_states(collected: _Collected, units: Sequence[_Unit], joined: _Joined, targets: _BaseOutputs) -> None:
    """Choose aligned positions: those behind what a packed row shares, where states also belong to other questions."""
    for unit in units:
        compare = collected.terms[unit.term].compare
        if not compare:
            continue
        first, second = (unit.requests[index] for index in compare)
        assert first is not None and second is not None
        one, other = first.aligned[-1], second.aligned[-1]
        base = targets.joined(second)
        skipped = max(_shared_with_others(one, first, joined), _shared_with_others(other, second, base))
        joined.wanted_states(first, one[skipped:])
        base.wanted_states(second, other[skipped:])


def _shared_with_others(positions: range, request: _Request, joined: _Joined) -> int:
    """How many of some positions are shared with other questions in a packed row; those that predict an answer never count."""
    shared, last = joined.shared(request), request.row.prompt_length - 1
    return max(0, shared - positions.start) if shared <= last else 0


def _said(where: _Joined, requests: Sequence[_Request], logits: Tensor, states: Tensor | None, *, compared: bool) -> Said:
    """Some requests' share of what a batch says."""
    numbers = [where.place[id(each)] for each in requests]
    index, owners = _spread([(where.starts[n], where.starts[n + 1]) for n in numbers])
    chosen, whose, labels = where.moved(index, owners, where.targets[index])
    found = Said(logits[chosen], labels, whose, len(requests))
    if compared and states is not None:
        places, whose = where.moved(*_spread([where.state_starts[n] for n in numbers]))
        found = found._replace(states=states[:, places], state_owners=whose)
    return found


def _in_order(parts: Sequence[Said], places: Sequence[Sequence[int]]) -> Said:
    """Put together what was said in several batches: the rows of each part are at these places of the whole."""

    def whose(owners: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """The owner of each value in the whole, and the order that sorts values by owner; the values of an owner keep theirs."""
        found = [to_device(torch.tensor(at), own.device)[own] for own, at in zip(owners, places, strict=True) if own is not None]
        return torch.cat(found).sort(stable=True)

    owners, order = whose([part.owners for part in parts])
    logits, targets = (torch.cat(values)[order] for values in ([part.logits for part in parts], [part.targets for part in parts]))
    whole = Said(logits, targets, owners, sum(map(len, places)))
    states = [part.states for part in parts if part.states is not None]
    if not states:
        return whole
    owners, order = whose([part.state_owners for part in parts])
    return whole._replace(states=torch.cat(states, dim=1)[:, order], state_owners=owners)


def _spread(spans: Sequence[tuple[int, int]]) -> tuple[Positions, Positions]:
    """Indices of all spans one after the other, `[k]`, and the number of the span of each."""
    index = np.concatenate([np.arange(start, end) for start, end in spans])
    return index, np.repeat(np.arange(len(spans)), [end - start for start, end in spans])


def aligned(one: EncodedRow, other: EncodedRow, pictures: frozenset[int]) -> tuple[range, range]:
    """Align two encodings of one example with the same answer and different prompts.

    Read from the back, they agree from the last answer token to the last prompt token that differs, or that stands for a picture.

    Args:
        one: an encoding.
        other: the other one.
        pictures: tokens that stand for pictures.

    Returns:
        Two ranges of equal length: positions in either row that hold the same tokens and predict an answer token or stand before one.
    """
    a, b = (row.text["input_ids"][: row.prompt_length].tolist() for row in (one, other))
    same = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y or x in pictures:
            break
        same += 1
    back = max(0, same - 1)  # the last prompt token predicts the answer, and is there in any case
    first, second = (range(row.prompt_length - 1 - back, len(row.text["input_ids"]) - 1) for row in (one, other))
    return first, second


def whole_loss(model: Any, terms: Sequence[Term], machine: Machine, trained: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step as one scalar: the sum over passes; attacked passes are differentiated while the adversary is active.

    Args:
        model: the model in training.
        terms: terms of the step.
        machine: encoder, device, packing and adapters.
        trained: trainable parameters.

    Returns:
        The loss, and its parts, detached and unweighted.
    """
    total, parts = torch.zeros((), device=machine.device), dict[str, Tensor]()
    for each in passes(model, Plan(terms, machine)):
        value = each.total
        if each.attacked and value.requires_grad:
            value = with_gradient(value, trained, gradients(value, trained))
        total = total + value
        for name, part in each.parts.items():
            parts[name] = parts[name] + part if name in parts else part
    return total, parts


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a loss; zero where it does not depend on a parameter, as the projector's for rows without pictures."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def with_gradient(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Make a scalar with a given value and a given gradient, for methods that do more with gradients than add them up.

    Args:
        value: the scalar's value.
        parameters: what the gradient is taken with respect to.
        gradients: the gradient, one tensor for each parameter and of its shape.

    Returns:
        A scalar whose backward pass adds `gradients` to the parameters.
    """
    total = value.detach()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        total = total + ((parameter - parameter.detach()) * gradient.detach()).sum()
    return total
