"""A plugin that mounts on a parent starts after it, serves under its name, and says what is wrong with the parent."""

from itertools import pairwise

from packaging.version import Version

from broker.supervisor.mounts import mount_points
from broker.supervisor.needs import parse_need
from broker.supervisor.plan import Candidate, Plan, make_plan
from plugin_sdk.wire.limits import MAX_SUBJECT_BYTES, MAX_SUBJECT_TOKENS


def plugin(name: str, parent: str = "", *, requires: str = "", version: str = "1.0", enabled: bool = True) -> Candidate:
    return Candidate(
        name,
        Version(version),
        f"plugins/{name}",
        requires=(parse_need(requires),) if requires else (),
        parent=parse_need(parent) if parent else None,
        enabled=enabled,
    )


def text(plan: Plan, name: str) -> str:
    return plan.problems[name].text


def test_a_sub_plugin_starts_after_its_parent_and_is_mounted_under_the_chain_of_names() -> None:
    plan = make_plan([plugin("trail", "audit"), plugin("audit", "users>=1"), plugin("users")])
    assert plan.levels == (("users",), ("audit",), ("trail",))
    assert plan.mounts == {"users": "users", "audit": "users.audit", "trail": "users.audit.trail"}
    assert plan.needing("users") == ("trail", "audit", "users"), "the order of stopping"


def test_a_missing_parent_is_named_as_such() -> None:
    assert text(make_plan([plugin("audit", "usres"), plugin("users")]), "audit") == (
        "plugin 'audit' mounts on usres but no plugin 'usres' is installed; did you mean 'users'?"
    )


def test_a_parent_of_the_wrong_version_is_told_with_both_versions() -> None:
    assert text(make_plan([plugin("audit", "users>=2"), plugin("users")]), "audit") == (
        "plugin 'audit' mounts on users>=2 but users 1.0 is installed (from plugins/users)"
    )


def test_a_disabled_parent_says_so() -> None:
    assert text(make_plan([plugin("audit", "users"), plugin("users", enabled=False)]), "audit") == (
        "plugin 'audit' mounts on users but users 1.0 is disabled: enable it (from plugins/users)"
    )


def test_the_trouble_of_a_parent_is_told_with_the_chain() -> None:
    plan = make_plan([plugin("trail", "audit"), plugin("audit", "users"), plugin("users", requires="ldap")])
    assert text(plan, "trail") == (
        "plugin 'trail' mounts on audit, which cannot start (trail → audit → users):"
        " plugin 'users' needs ldap but no plugin 'ldap' is installed; install it"
    )


def test_a_circle_of_parents_is_told_as_one() -> None:
    plan = make_plan([plugin("a", "b"), plugin("b", "a"), plugin("c", "a")])
    assert text(plan, "a") == "plugin 'a' mounts on itself: a → b → a; drop one of these from 'parent'"
    assert text(plan, "c").startswith("plugin 'c' mounts on a, which cannot start (c → a)")
    assert plan.mounts == {}


def test_a_circle_of_both_kinds_names_both() -> None:
    plan = make_plan([plugin("users", requires="audit"), plugin("audit", "users")])
    assert text(plan, "users") == (
        "plugin 'users' needs itself: users → audit → users; drop one of these from 'requires' or 'parent'"
    )


def test_a_chain_that_leaves_no_room_for_a_service_is_refused() -> None:
    chain = [plugin("p0"), *(plugin(f"p{depth}", f"p{depth - 1}") for depth in range(1, MAX_SUBJECT_TOKENS))]
    plan = make_plan(chain)
    last = f"p{MAX_SUBJECT_TOKENS - 1}"
    assert plan.problems.keys() == {last}
    assert text(plan, last).startswith(f"plugin '{last}' mounts on too many parents, as p0.p1.")


def test_long_names_leave_no_room_either() -> None:
    names = [letter * 64 for letter in "abcd"]
    plan = make_plan([plugin(names[0]), *(plugin(name, parent) for parent, name in pairwise(names))])
    assert plan.problems.keys() == {names[3]}
    assert f"{MAX_SUBJECT_BYTES} characters" in text(plan, names[3])


def test_a_plugin_that_cannot_start_has_its_place_all_the_same() -> None:
    assert make_plan([plugin("audit", "users>=2"), plugin("users")]).mounts["audit"] == "users.audit"


def test_a_circle_ends_and_has_no_place() -> None:
    assert mount_points({"a": "b", "b": "a", "c": "", "d": "a"}) == {"c": "c"}
