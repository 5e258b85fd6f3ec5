"""Plugin folders: what is read from them, and what a person is told about a broken one."""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.supervisor.discovery import Catalog, Installed, discover, read_folder
from broker.supervisor.document import BadDocument, read_document
from broker.supervisor.manifest import Manifest
from broker.supervisor.section import read_as

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_plugin(name: str, manifest: str, *, where: str = "plugins", main: str | None = "main.py") -> Path:
        folder = tmp_path / where / name
        folder.mkdir(parents=True)
        (folder / "plugin.yaml").write_text(manifest)
        if main:
            (folder / main).write_text("")
        return folder

    (tmp_path / "config").mkdir()
    return write_plugin


def found(tmp_path: Path, *where: str) -> Catalog:
    return discover([tmp_path / name for name in where or ("plugins",)], tmp_path / "config")


def only(tmp_path: Path) -> Installed:
    (plugin,) = found(tmp_path).plugins
    return plugin


def test_a_short_manifest_is_enough(tmp_path: Path, write: Write) -> None:
    folder = write("hello", 'name: hello\nversion: "1.0"\n')
    plugin = only(tmp_path)
    assert not plugin.fault
    assert (plugin.plugin_id, plugin.folder) == ("hello", folder)
    assert plugin.command == (sys.executable, "main.py")
    assert plugin.candidate.enabled


def test_a_full_manifest_is_read_as_written(tmp_path: Path, write: Write) -> None:
    write(
        "hello",
        """
id: hello
name: Hello, world
version: "2.1.0rc1"
description: answers logins
enabled: false
requires: [logger>=1.0, "users<3"]
after: [stdout]
conflicts: [old-hello]
services: [hello.greet]
command: [node, main.js]
env: {PORT: 8080, MODE: fast}
config: {greeting: {text: hi, times: 2}}
restart: on-failure
timeouts: {register: 3, initialize: 4.5, start: 5, cleanup: 1, stop: 2}
""",
    )
    plugin = only(tmp_path)
    manifest = plugin.manifest
    assert manifest is not None
    assert plugin.command == ("node", "main.js")
    assert [str(need) for need in manifest.requires] == ["logger>=1.0", "users<3"]
    assert manifest.env == {"PORT": "8080", "MODE": "fast"}
    assert manifest.timeouts.register_ == 3
    assert manifest.restart == "on-failure"
    assert not plugin.candidate.enabled


def test_the_operators_file_goes_before_the_plugins_own_word(tmp_path: Path, write: Write) -> None:
    write(
        "hello",
        'name: hello\nversion: "1"\nenv: {A: x, B: x}\nconfig: {deep: {a: 1, b: [1, 2]}, c: 3}\ntimeouts: {start: 1}',
    )
    (tmp_path / "config" / "hello.yaml").write_text(
        "enabled: false\nenv: {B: y}\nconfig: {deep: {b: [9]}, d: 4}\ntimeouts: {stop: 2}\nrestart: never\n"
    )
    manifest = only(tmp_path).manifest
    assert manifest is not None
    assert manifest.config == {"deep": {"a": 1, "b": [9]}, "c": 3, "d": 4}
    assert manifest.env == {"A": "x", "B": "y"}
    assert (manifest.timeouts.start, manifest.timeouts.stop) == (1, 2)
    assert (manifest.enabled, manifest.restart) == (False, "never")


def test_an_empty_operators_file_changes_nothing(tmp_path: Path, write: Write) -> None:
    write("hello", 'name: hello\nversion: "1"\nenabled: false\nrestart: never')
    (tmp_path / "config" / "hello.yaml").write_text("# nothing yet\n")
    manifest = only(tmp_path).manifest
    assert manifest is not None
    assert (manifest.enabled, manifest.restart) == (False, "never")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("requirs: [logger]", "requirs: is not a field; did you mean 'requires'?"),
        ("requires: logger", "requires: is 'logger'; expects a list such as ['logger>=1.0']"),
        ("requires: [logger >> 1]", "requires[0]: is 'logger >> 1': expects a plugin's name and versions"),
        ("requires: [9]", "requires[0]: is 9: expects a text such as 'logger>=1.0'"),
        ("requires: ['logger[x]']", "requires[0]: is 'logger[x]': expects a name and versions only"),
        ("after: [a b]", "after[0]: is 'a b': name 'a b' is not allowed"),
        ("enabled: perhaps", "enabled: is 'perhaps'; expects true or false"),
        ("command: ./run.sh", "command: is './run.sh'; expects a list: the program and its arguments"),
        ("env: {BROKER_HOME: x}", "env: is {'BROKER_HOME': 'x'}: 'BROKER_HOME' is set by the broker itself"),
        ("enabled: 1", "enabled: is 1; expects true or false"),
        ("env: {1: x}", "env: is {1: 'x'}: 1 is not a text: put it in quotes"),
        ("env: {A: [1]}", "env.A: is [1]; expects lines of the form 'NAME: \"text\"'"),
        ("config: [1]", "config: is [1]; expects the plugin's own settings as 'name: value'"),
        ("config: {day: 2026-01-01}", "config.day is read as date: put it in quotes"),
        ("config: {a: {1: x}}", "config.a has a name that is not a text: put it in quotes"),
        ("config: {big: 99999999999999999999}", "config.big is a number of more than 64 bits: put it in quotes"),
        ("config: {far: .inf}", "config.far is not a finite number"),
        ("restart: sometimes", "restart: is 'sometimes'; expects always, on-failure or never"),
        ("timeouts: {start: 0}", "timeouts.start: is 0; expects a number of seconds above 0"),
        ("timeouts: {start: '1'}", "timeouts.start: is '1'; expects a number of seconds above 0"),
        ("timeouts: {begin: 1}", "timeouts.begin: is not a field; there are register, initialize"),
        ("description: [1]", "description: is [1]; expects a text"),
    ],
)
def test_a_mistake_is_told_with_file_line_field_value_and_way_out(
    tmp_path: Path, write: Write, line: str, told: str
) -> None:
    folder = write("hello", f'name: hello\nversion: "1.0"\n{line}\n')
    fault = only(tmp_path).fault
    assert fault.startswith(f"{folder / 'plugin.yaml'}:3: ")
    assert told in fault


def test_an_unquoted_version_is_refused_because_yaml_would_shorten_it(tmp_path: Path, write: Write) -> None:
    folder = write("hello", "name: hello\nversion: 1.10\n")
    assert only(tmp_path).fault == (
        f'{folder / "plugin.yaml"}:2: version: is 1.1: expects a version in quotes, such as "1.0": '
        "unquoted, 1.10 would be read as 1.1"
    )


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path, write: Write) -> None:
    write("hello", "name: he llo\nrestart: 7\n")
    lines = only(tmp_path).fault.splitlines()
    assert [line.split(": ", 2)[1] for line in lines] == ["name", "version", "restart"]
    assert lines[1].endswith('version: is missing; expects a version in quotes, such as "1.0"')


# Nine times nine times nine …, in less than a kilobyte.
BOMB = "\n".join(["a0: &a0 1", *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(15))])
MERGE_BOMB = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}" for n in range(15))]
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name: [unclosed\n", ":2: is not YAML: "),
        ("- a\n- b\n", ":1: expects lines of the form 'name: value'"),
        ("1: a\n", ":1: expects lines of the form 'name: value'"),
        ("name: a\nconfig:\n  x: 1\n  x: 2\n", ":4: config.x: is set twice, first in line 3; keep one"),
        ("name: \x00", ": is not YAML: "),
        ("a: &a [*a, *a]\n", ": its aliases stand for more than 100000 things; write out what is meant"),
        (BOMB, ": its aliases stand for more than 100000 things"),
        (MERGE_BOMB, ": its aliases stand for more than 100000 things"),
        ("a: " + "[" * 100_000, ":1: is nested more than 100 levels deep"),
        ("a:" + "\n- " * 3 + "{a: " * 100_000, ":4: is nested more than 100 levels deep"),
        ("a: !!python/object:os.system {}\n", ":1: is not YAML: could not determine a constructor"),
        ("", ": name: is missing; expects a name of letters"),
    ],
)
def test_what_is_no_manifest_at_all_is_told_too(tmp_path: Path, write: Write, content: str, told: str) -> None:
    write("hello", content)
    assert told in only(tmp_path).fault


def test_a_manifest_that_is_not_text_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "hello" / "plugin.yaml").mkdir(parents=True)
    assert read_folder(tmp_path / "hello", tmp_path).fault.endswith("plugin.yaml: cannot be read: Is a directory")


def test_a_pipe_in_the_place_of_a_manifest_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    os.mkfifo(tmp_path / "hello" / "plugin.yaml")
    assert read_folder(tmp_path / "hello", tmp_path).fault.endswith(
        "plugin.yaml: is no file that can be read: put a text file there"
    )


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "plugin.yaml"
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(BadDocument, match="is larger than 1048576 bytes"):
        read_document(path)


def test_a_folder_without_a_program_says_which_files_it_looked_for(tmp_path: Path, write: Write) -> None:
    folder = write("hello", 'name: hello\nversion: "1"\n', main=None)
    assert only(tmp_path).fault == (
        f"{folder}: has no main.py or hello.py, and plugin.yaml names no 'command' to run instead"
    )


def test_the_program_may_bear_the_plugins_name(tmp_path: Path, write: Write) -> None:
    write("hello", 'name: hello\nversion: "1"\n', main="hello.py")
    assert only(tmp_path).command == (sys.executable, "hello.py")


def test_a_broken_plugin_is_one_named_failure_beside_the_good_ones(tmp_path: Path, write: Write) -> None:
    write("bad", "version: 7")
    write("good", 'name: good\nversion: "1"')
    (tmp_path / "config" / "good.yaml").write_text("config: {a: 1}")
    bad, good = found(tmp_path).plugins
    assert bad.plugin_id == "bad"
    assert bad.candidate.fault
    assert good.manifest is not None
    assert good.manifest.config == {"a": 1}


def test_a_broken_operators_file_is_a_failure_of_its_plugin(tmp_path: Path, write: Write) -> None:
    write("hello", 'name: hello\nversion: "1"')
    (tmp_path / "config" / "hello.yaml").write_text("enable: false")
    assert only(tmp_path).fault == (
        f"{tmp_path / 'config' / 'hello.yaml'}:1: enable: is not a field; did you mean 'enabled'?"
    )


def test_of_two_plugins_with_one_id_the_first_counts_and_the_second_fails(tmp_path: Path, write: Write) -> None:
    write("hello", 'name: hello\nversion: "1"', where="mine")
    write("hello", 'name: hello\nversion: "2"', where="shipped")
    first, second = found(tmp_path, "mine", "shipped").plugins
    assert first.manifest is not None
    assert str(first.manifest.version) == "1"
    taken = f"{second.folder}: plugin id 'hello' is taken by {first.folder}"
    assert second.fault == f"{taken}: rename or remove one of them"
    assert second.plugin_id == "hello#1"


def test_what_is_no_plugin_folder_is_passed_over(tmp_path: Path, write: Write) -> None:
    write(".hidden", 'name: hidden\nversion: "1"')
    (tmp_path / "plugins" / "notes.txt").write_text("")
    (tmp_path / "plugins" / "empty").mkdir()
    assert found(tmp_path) == Catalog(())


def test_likely_mistakes_around_the_folders_are_warned_of(tmp_path: Path, write: Write) -> None:
    write("hello", 'name: hello\nversion: "1"')
    (tmp_path / "plugins" / "other").mkdir()
    (tmp_path / "plugins" / "other" / "plugin.yml").write_text("")
    (tmp_path / "config" / "helo.yaml").write_text("")
    warnings = found(tmp_path, "plugins", "nowhere").warnings
    assert warnings == (
        f"{tmp_path / 'plugins' / 'other' / 'plugin.yml'} is not read: rename it to plugin.yaml",
        f"plugin directory {tmp_path / 'nowhere'} cannot be read: No such file or directory",
        f"{tmp_path / 'config' / 'helo.yaml'} belongs to no installed plugin; did you mean hello.yaml?",
    )


YAML_PIECES = st.sampled_from(
    ["name", "version", "config", "requires", ":", ": ", "\n", "- ", "[", "]", "{", "}", "'", '"', "&a", "*a", "1.0"]
    + [
        "<<",
        "!!binary",
        "!!set",
        "!!float",
        "!!bool",
        "!!timestamp",
        "!!omap",
        "2020-02-30",
        "0x",
        "\t",
        "  ",
        "é",
        "? ",
        "|",
        ">",
        "#",
        "null",
        "~",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(YAML_PIECES, max_size=14))
def test_no_text_whatever_makes_reading_a_manifest_raise_anything_but_a_named_failure(pieces: list[str]) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write("".join(pieces).encode())
        file.flush()
        with suppress(BadDocument):
            read_as(Manifest, read_document(Path(file.name)))


def test_a_parent_is_a_name_with_or_without_versions(tmp_path: Path, write: Write) -> None:
    write("audit", 'name: audit\nversion: "1.0"\nparent: users>=1.0,<3\n')
    assert str(only(tmp_path).candidate.parent) == "users<3,>=1.0"


@pytest.mark.parametrize(
    ("parent", "told"), [("7", "expects a text such as"), ("[users]", "expects a text"), ('"a[x]"', "without extras")]
)
def test_a_parent_that_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, write: Write, parent: str, told: str
) -> None:
    folder = write("audit", f'name: audit\nversion: "1.0"\nparent: {parent}\n')
    fault = only(tmp_path).fault
    assert fault.startswith(f"{folder}/plugin.yaml:3: parent: is ")
    assert told in fault
