"""The graph of the blocks: tasks that tell which block they were about to read.

Where a task fails, Dask hands its error to all that depend on it, and none of them
runs. So a block that cannot be read can be named by its own tasks only.
"""

from typing import NamedTuple

from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.utils import key_split
from distributed import Future

from ._errors import block_name, naming

try:  # no public part of Dask says what a task is made of
    from dask._task_spec import Task, convert_legacy_graph
except ImportError:  # blocks are read all the same, but errors name none
    Task = None

# In place of the owner of a task, where several blocks need it.
SHARED = None


class _Owner(NamedTuple):
    """The block that needs a task, which no other block does."""

    number: int
    source: str  # "X", "mask" or "entry_weight"


def named_blocks(sources: dict[str, list[Delayed]]) -> dict[str, list[Delayed]]:
    """Return the same blocks of X, mask and weights, whose tasks name their block.

    A task that several blocks need, as a shuffle has them, remains as it is. So do all
    tasks where annotations say how to run them, or where data are on a cluster already.
    """
    blocks = [block for source in sources.values() for block in source]
    merged = HighLevelGraph.merge(*(block.__dask_graph__() for block in blocks))
    annotated = any(layer.annotations for layer in merged.layers.values())
    if Task is None or annotated or holds_futures(merged):
        return sources
    graph = convert_legacy_graph(dict(merged))
    owners = _owners(graph, sources)
    names = {
        key: block_name(*owner, sources[owner.source][owner.number].key)
        for key, owner in owners.items()
        if owner is not SHARED
    }
    new_keys = _new_keys(graph, names)
    changed = {
        new_keys.get(key, key): graph[key]
        if key not in new_keys
        else _renamed(graph[key], new_keys, names[key])
        for key in owners
    }
    layer = f"blocks-{tokenize(names, [block.key for block in blocks])}"
    graph = HighLevelGraph({layer: changed}, {layer: set()})
    return {
        source: [
            Delayed(new_keys.get(block.key, block.key), graph, layer=layer)
            for block in blocks
        ]
        for source, blocks in sources.items()
    }


def holds_futures(graph: HighLevelGraph) -> bool:
    """Whether data of the graph are on a cluster, as after persist()."""
    layers = [
        layer
        for layer in graph.layers.values()
        if isinstance(layer, MaterializedLayer | dict)
    ]
    return any(isinstance(task, Future) for layer in layers for task in layer.values())


def _owners(graph: dict, sources: dict[str, list[Delayed]]) -> dict:
    """The block that needs each of the tasks, `SHARED` where several do.

    A block of X and of the mask beside it may need the same tasks.
    """
    owners: dict = {}
    for source, blocks in sources.items():
        for number, block in enumerate(blocks):
            waiting = [block.key]
            while waiting:
                key = waiting.pop()
                known = key in owners
                if key not in graph or (known and _is_settled(owners[key], number)):
                    continue
                owners[key] = SHARED if known else _Owner(number, source)
                waiting.extend(graph[key].dependencies)
    return owners


def _is_settled(owner: _Owner | None, number: int) -> bool:
    """Whether the need of one more block does not change who owns a task."""
    return owner is SHARED or owner.number == number


def _new_keys(graph: dict, names: dict) -> dict:
    """New keys for what changes, as a scheduler may know the old ones.

    `names` are those of the blocks that need each task. What holds data keeps its key.
    """
    dependents: dict = {}
    for key in names:
        for dependency in graph[key].dependencies:
            dependents.setdefault(dependency, []).append(key)
    new_keys: dict = {}
    waiting = [key for key in names if type(graph[key]) is Task]
    while waiting:  # what refers to a changed key changes, too
        key = waiting.pop()
        if key not in new_keys:
            new_keys[key] = _new_key(key, tokenize(names[key]))
            waiting.extend(dependents.get(key, []))
    return new_keys


def _new_key(key, token: str) -> tuple:
    """A key that begins alike for all blocks: a scheduler plans for such groups."""
    if isinstance(key, tuple):
        return (f"block-{key[0]}", token, *key[1:])
    return (f"block-{key_split(key)}", token, key)


def _renamed(node, new_keys: dict, name: str):
    """The task under its new key, and its function called by `_run_named`."""
    near = {key: new_keys[key] for key in node.dependencies if key in new_keys}
    changed = node.substitute(near, key=new_keys[node.key])
    if type(changed) is not Task:
        return changed
    options = {"_data_producer": changed.data_producer, **changed.kwargs}
    return Task(changed.key, _run_named, name, changed.func, *changed.args, **options)


def _run_named(block: str, function, /, *args, **options):
    """Call the function of a task that reads the block."""
    with naming(block, reading=True):
        return function(*args, **options)
