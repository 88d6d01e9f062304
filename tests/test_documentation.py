"""The recipes of the documentation run alone, as they do when somebody copies one."""

import codeop
import doctest
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import sklearn_mfgd

PAGE = Path(__file__).resolve().parents[1] / "doc" / "how_do_i.rst"
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Block(NamedTuple):
    """A block of code as the page shows it, which is what its button copies."""

    heading: str
    source: str
    line: int


def parse(text):
    """Return the headings below the title, and all blocks of code.

    A blank line ends a block.
    """
    headings, blocks = [], []
    for match in re.finditer(r"[^\n]+(\n[^\n]+)*", text):
        paragraph = match.group()
        if re.fullmatch(r"[^\n]+\n-+", paragraph):
            headings.append(paragraph.splitlines()[0])
        elif paragraph.lstrip().startswith(">>>"):
            line = text.count("\n", 0, match.start())
            heading = headings[-1] if headings else ""
            blocks.append(Block(heading, paragraph + "\n", line))
    return headings, blocks


TEXT = PAGE.read_text(encoding="utf-8")
HEADINGS, BLOCKS = parse(TEXT)
CLASSES = [
    name
    for name in sklearn_mfgd.__all__
    if isinstance(getattr(sklearn_mfgd, name), type)
]


def readable(blocks):
    """Return ids: the heading, with a number where it has several blocks."""
    ids, n_before = [], {}
    for block in blocks:
        name = re.sub(r"\W+", "-", block.heading.lower()).strip("-")
        number = n_before[name] = n_before.get(name, 0) + 1
        ids.append(name if number == 1 else f"{name}-{number}")
    return ids


def failures_of(block):
    """Run a block in a namespace of its own; return what doctest says of it."""
    parser, report = doctest.DocTestParser(), []
    test = parser.get_doctest(block.source, {}, block.heading, str(PAGE), block.line)
    assert test.examples
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    return "".join(report)


def test_the_page_has_blocks_of_code_and_none_that_another_syntax_hides():
    assert len(BLOCKS) >= len(HEADINGS) > 0
    assert sum(block.source.count(">>> ") for block in BLOCKS) == TEXT.count(">>> ")
    assert "code-block::" not in TEXT


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("block", BLOCKS, ids=readable(BLOCKS))
def test_a_recipe_runs_alone_prints_what_the_page_says_and_does_not_warn(block):
    failures = failures_of(block)
    assert not failures, failures


@pytest.mark.parametrize("block", BLOCKS, ids=readable(BLOCKS))
def test_a_recipe_can_be_pasted_into_an_interpreter(block):
    """Which ends a loop or a function at an empty line, and not before."""
    prompts = re.findall(r"^(?:>>>|\.\.\.)(?: (.*))?$", block.source, re.MULTILINE)
    statement = []
    for line in prompts:
        statement.append(line)
        if codeop.compile_command("\n".join(statement)) is not None:
            statement = []
    assert not statement


def test_a_recipe_that_needs_names_of_another_one_would_fail():
    needy = Block("needy", ">>> X = np.ones(3)\n", 0)
    assert "NameError" in failures_of(needy)


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_recipe_has_a_block_of_code(heading):
    assert heading in {block.heading for block in BLOCKS}


def test_the_list_at_the_beginning_links_every_recipe_in_order():
    beginning = TEXT.partition(f"\n{HEADINGS[0]}\n---")[0]
    assert re.findall(r"^ *- `(.+)`_$", beginning, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_named(name):
    assert re.search(rf"\b{name}\b", TEXT)


def test_the_citation_is_that_of_the_file_for_it():
    cff = (PAGE.parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^(?:  - )?(\w+): (\S.*)$", cff, re.MULTILINE))
    citation = TEXT.partition("\nCite the package\n---")[2]
    for field in ("title", "version", "name", "license"):
        assert fields[field] in citation
    assert fields["version"] == sklearn_mfgd.__version__
