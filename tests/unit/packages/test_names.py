"""Names of files in packages, and names of packages."""

import pytest
from packaging.version import Version

from broker.packages.errors import PackageError, State
from broker.packages.names import check_path, check_together, file_name, parse_file_name


@pytest.mark.parametrize("path", ["main.py", "a/b/c.txt", "größe.txt", "日本/語.py", ".env", "a-b_c+d (1).py"])
def test_an_ordinary_path_is_allowed(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("../up", "leads out"),
        ("a/../../up", "leads out"),
        ("a/./b", "leads out"),
        ("..", "leads out"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("", "empty part"),
        ("a\\..\\b", "not allowed in names"),
        ("C:x", "not allowed in names"),
        ("a\0b", "not allowed in names"),
        ("a\nb", "not allowed in names"),
        ("a\u202eb", "not allowed in names"),
        ("e\u0301.py", "normal form C"),
        ("a./b", "ends with a dot or a space"),
        ("a /b", "ends with a dot or a space"),
        ("x" * 201, "too long"),
        ("/".join("x" * 17), "too long"),
        ("/".join(["x" * 150] * 4), "too long"),
    ],
)
def test_a_path_that_could_lead_anywhere_else_is_refused(path: str, reason: str) -> None:
    with pytest.raises(PackageError, match=reason) as caught:
        check_path(path)
    assert caught.value.state is State.UNSAFE


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["a", "a"], "is there twice"),
        (["Main.py", "main.py"], "differs from 'Main.py' in case only"),
        (["lib/a", "LIB/b"], "differs from 'lib' in case only"),
        (["straße", "STRASSE"], "in case only"),
        (["a", "a/b"], "needs a folder where 'a' is a file"),
        (["a/b", "a"], "needs a folder where 'a' is a file"),
    ],
)
def test_paths_that_would_meet_on_some_file_system_are_refused(paths: list[str], reason: str) -> None:
    with pytest.raises(PackageError, match=reason):
        check_together(paths)


def test_paths_of_one_folder_do_not_disturb_each_other() -> None:
    check_together(["lib/a", "lib/b", "lib/c/d", "main.py"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hello-1.0.0.spk", ("hello", "1.0.0")),
        ("my-own-plugin-2.1rc1.spk", ("my-own-plugin", "2.1rc1")),
        ("hello.spk", None),
        ("hello-1.0.0.zip", None),
        ("hello-1.0.0-1.spk", None),
        ("hello-v1.0.spk", None),
        ("hello-1.0.0 (1).spk", None),
        ("1hello-1.0.spk", None),
        ("-1.0.spk", None),
    ],
)
def test_id_and_version_are_read_from_a_file_name(name: str, found: tuple[str, str] | None) -> None:
    parsed = parse_file_name(name)
    assert (parsed and (parsed[0], str(parsed[1]))) == found
    if parsed:
        assert file_name(*parsed) == name


def test_a_version_has_one_spelling_in_a_file_name() -> None:
    assert file_name("hello", Version("v1.0-1")) == "hello-1.0.post1.spk"
