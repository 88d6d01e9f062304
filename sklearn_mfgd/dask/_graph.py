"""The graph of the blocks: tasks that tell which block they were about to read.

Where a task fails, Dask hands its error to all that depend on it, and none of them
runs. So a block that cannot be read can be named by its own tasks only.
"""

from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Future

from ._errors import block_name, naming

try:  # no public part of Dask says what a task is made of
    from dask._task_spec import Task, convert_legacy_graph
except ImportError:  # blocks are read all the same, but errors name none
    Task = None

# In place of the number of a block, for what several blocks need.
SHARED = -1


def named_blocks(blocks: list[Delayed]) -> list[Delayed]:
    """Return the same blocks, read by tasks whose errors name the block.

    A task that several blocks need, as a shuffle has them, remains as it is. So do all
    tasks where annotations say how to run them, or where data are on a cluster already.
    """
    merged = HighLevelGraph.merge(*(block.__dask_graph__() for block in blocks))
    annotated = any(layer.annotations for layer in merged.layers.values())
    if Task is None or annotated or holds_futures(merged):
        return blocks
    graph = convert_legacy_graph(dict(merged))
    owners = _owners(graph, [block.key for block in blocks])
    new_keys = _new_keys(graph, owners)
    changed = {
        new_keys.get(key, key): _changed(node, owners.get(key), blocks, new_keys)
        for key, node in graph.items()
        if key in owners
    }
    layer = f"blocks-{tokenize(*(block.key for block in blocks))}"
    graph = HighLevelGraph({layer: changed}, {layer: set()})
    keys = [new_keys.get(block.key, block.key) for block in blocks]
    return [Delayed(key, graph, layer=layer) for key in keys]


def holds_futures(graph: HighLevelGraph) -> bool:
    """Whether data of the graph are on a cluster, as after persist()."""
    layers = [
        layer
        for layer in graph.layers.values()
        if isinstance(layer, MaterializedLayer | dict)
    ]
    return any(isinstance(task, Future) for layer in layers for task in layer.values())


def _owners(graph: dict, keys: list) -> dict:
    """The number of the block that needs a task, `SHARED` where several do."""
    owners: dict = {}
    for number, block_key in enumerate(keys):
        waiting = [block_key]
        while waiting:
            key = waiting.pop()
            if key not in graph or owners.get(key) in (number, SHARED):
                continue
            owners[key] = SHARED if key in owners else number
            waiting.extend(graph[key].dependencies)
    return owners


def _new_keys(graph: dict, owners: dict) -> dict:
    """New keys for what changes, as a scheduler may know the old ones.

    What holds data or futures keeps its key.
    """
    new_keys: dict = {}
    waiting = [key for key, owner in owners.items() if owner != SHARED]
    for key in waiting:
        if type(graph[key]) is Task:
            new_keys[key] = _prefixed(key, owners[key])
    dependents: dict = {}
    for key in waiting:
        for dependency in graph[key].dependencies:
            dependents.setdefault(dependency, []).append(key)
    waiting = list(new_keys)
    while waiting:  # what refers to a changed key changes, too
        for key in dependents.get(waiting.pop(), []):
            if key not in new_keys:
                new_keys[key] = _prefixed(key, owners[key])
                waiting.append(key)
    return new_keys


def _prefixed(key, number: int):
    if isinstance(key, tuple):
        return (_prefixed(key[0], number), *key[1:])
    return f"block-{number}-{key}"


def _changed(node, owner: int, blocks: list[Delayed], new_keys: dict):
    """The task under its new key, and its function called by `_run_named`."""
    if node.key not in new_keys:
        return node
    near = {key: new_keys[key] for key in node.dependencies if key in new_keys}
    changed = node.substitute(near, key=new_keys[node.key])
    if type(changed) is not Task:
        return changed
    name = block_name(owner, blocks[owner].key)
    call = name, changed.func, *changed.args
    return Task(changed.key, _run_named, *call, **changed.kwargs)


def _run_named(block: str, function, /, *args, **options):
    """Call the function of a task that reads the block."""
    with naming(block, reading=True):
        return function(*args, **options)
