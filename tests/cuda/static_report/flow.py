"""Basic blocks and loops of a kernel, and what the lightest pass of a loop executes."""

from dataclasses import dataclass, field
from itertools import pairwise

ENDS = ("EXIT", "RET")


@dataclass
class Block:
    instructions: list
    next: list[int] = field(default_factory=list)


@dataclass
class Loop:
    head: int
    body: set[int]


def blocks(kernel):
    """In their order, the entry first. Calls are of what computes a quotient or the like: the
    caller goes on behind them, and what is called is no block of the caller's."""
    code = kernel.instructions
    starts = {0, len(code)} | set(kernel.labels.values())
    starts |= {n + 1 for n, i in enumerate(code) if i.jumps or i.stem in ENDS}
    starts = sorted(s for s in starts if s <= len(code))
    number = {start: n for n, start in enumerate(starts)}
    found = []
    for n, (start, end) in enumerate(pairwise(starts)):
        block = Block(code[start:end])
        last = block.instructions[-1]
        falls = True
        if last.jumps:
            if last.target in kernel.labels and kernel.labels[last.target] < len(code):
                block.next.append(number[kernel.labels[last.target]])
            falls = last.conditional
        elif last.stem in ENDS:
            falls = bool(last.predicate)
        if falls and end < len(code):
            block.next.append(n + 1)
        found.append(block)
    return found


def order(graph):
    """Blocks that the entry reaches, each before those that it leads to, but for loops."""
    seen, done = {0}, []
    stack = [(0, iter(graph[0].next))]
    while stack:
        n, rest = stack[-1]
        for to in rest:
            if to not in seen:
                seen.add(to)
                stack.append((to, iter(graph[to].next)))
                break
        else:
            done.append(n)
            stack.pop()
    return done[::-1]


def dominators(graph):
    """Of each block, those that every path from the entry to it passes: a bit each."""
    sequence, before = order(graph), {}
    for n in sequence:
        for to in graph[n].next:
            before.setdefault(to, []).append(n)
    every = (1 << len(graph)) - 1
    found = dict.fromkeys(sequence, every) | {0: 1}
    changed = True
    while changed:
        changed = False
        for n in sequence[1:]:
            common = every
            for p in before[n]:
                common &= found[p]
            common |= 1 << n
            if common != found[n]:
                found[n], changed = common, True
    return found


def loops(graph):
    """Natural loops, one for each head."""
    over = dominators(graph)
    before = {}
    for n in over:
        for to in graph[n].next:
            before.setdefault(to, []).append(n)
    found = {}
    for n in over:
        for head in graph[n].next:
            if not over[n] >> head & 1:
                continue
            loop = found.setdefault(head, Loop(head, {head}))
            stack = [n]
            while stack:
                b = stack.pop()
                if b not in loop.body:
                    loop.body.add(b)
                    stack += before[b]
    return list(found.values())


def lightest_pass(graph, loop, is_work):
    """The instructions of the path from the head back to it in which work has the largest share:
    rare cases, which have some work of their own and much else, are passed by. Loops inside are
    passed through once."""
    sequence = [n for n in order(graph) if n in loop.body]
    length = {n: len(graph[n].instructions) for n in loop.body}
    work = {n: sum(map(is_work, graph[n].instructions)) for n in loop.body}

    def best_path(share):
        """Work counts as much as it must for a path with this share, (work, length), to cost 0."""
        cost = {n: length[n] * share[0] - work[n] * share[1] for n in loop.body}
        best, ends = {loop.head: (cost[loop.head], [loop.head])}, []
        for n in sequence:
            if n not in best:
                continue
            so_far, path = best[n]
            for to in graph[n].next:
                if to == loop.head:
                    ends.append(best[n])
                elif to in loop.body and (to not in best or so_far + cost[to] < best[to][0]):
                    best[to] = (so_far + cost[to], [*path, to])
        return min(ends)[1]

    share = (0, 1)  # most work, to begin with
    while True:  # each path has a larger share than the one before
        path = best_path(share)
        its = (sum(work[n] for n in path), sum(length[n] for n in path))
        if its[0] * share[1] <= share[0] * its[1]:
            return [i for n in path for i in graph[n].instructions]
        share = its


def main_loop(graph, is_work):
    """The innermost of the loops with most work; None: there is no work in any."""

    def key(loop):
        inside = [i for n in loop.body for i in graph[n].instructions]
        return sum(map(is_work, inside)), -len(inside)

    candidates = [(key(loop), loop.head, loop) for loop in loops(graph)]
    most = max(candidates, default=None, key=lambda c: c[:2])
    return most[2] if most and most[0][0] else None
