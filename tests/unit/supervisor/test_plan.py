"""The dependency plan: order for those that can start, a named reason with its chain for those that cannot."""

from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from broker.supervisor.needs import parse_need
from broker.supervisor.plan import Candidate, Plan, make_plan


def plugin(name: str, *requires: str, version: str = "1.0", **more: object) -> Candidate:
    needs = tuple(parse_need(text) for text in requires)
    return Candidate(name, Version(version), f"plugins/{name}", requires=needs, **more)  # type: ignore[arg-type]


def text(plan: Plan, name: str) -> str:
    return plan.problems[name].text


def test_plugins_start_level_by_level_after_what_they_need() -> None:
    plan = make_plan([plugin("shop", "users", "logger"), plugin("users", "logger"), plugin("logger"), plugin("stdout")])
    assert plan.levels == (("logger", "stdout"), ("users",), ("shop",))
    assert not plan.problems


def test_a_soft_edge_orders_but_does_not_bind() -> None:
    plan = make_plan([plugin("a", after=("b", "nobody")), plugin("b")])
    assert plan.levels == (("b",), ("a",))
    assert plan.requires["a"] == frozenset()


def test_a_soft_edge_that_would_close_a_circle_is_left_out_and_noted() -> None:
    plan = make_plan([plugin("a", after=("b",)), plugin("b", "a")])
    assert plan.levels == (("a",), ("b",))
    assert plan.notes == ("plugin 'a' asks to start after b, which itself starts after it: ignored",)


def test_a_wrong_version_names_both_versions_and_the_place() -> None:
    plan = make_plan([plugin("hello", "logger>=2.0"), plugin("logger", version="1.4.2")])
    assert text(plan, "hello") == (
        "plugin 'hello' needs logger>=2.0 but logger 1.4.2 is installed (from plugins/logger)"
    )
    assert plan.levels == (("logger",),)


def test_a_pre_release_satisfies_a_range_that_it_lies_in() -> None:
    assert not make_plan([plugin("hello", "logger>=1.0"), plugin("logger", version="2.0rc1")]).problems


def test_a_missing_dependency_is_named_with_a_near_name() -> None:
    plan = make_plan([plugin("hello", "loger"), plugin("logger"), plugin("far", "elsewhere>1")])
    missing = "plugin 'hello' needs loger but no plugin 'loger' is installed"
    assert text(plan, "hello") == f"{missing}; did you mean 'logger'?"
    assert text(plan, "far") == "plugin 'far' needs elsewhere>1 but no plugin 'elsewhere' is installed; install it"


def test_a_disabled_dependency_says_so() -> None:
    plan = make_plan([plugin("hello", "logger"), plugin("logger", enabled=False)])
    assert text(plan, "hello") == (
        "plugin 'hello' needs logger but logger 1.0 is disabled: enable it (from plugins/logger)"
    )
    assert "logger" not in plan.problems, "being disabled is no failure"


def test_all_troubles_of_a_plugin_are_told_at_once() -> None:
    plan = make_plan([plugin("hello", "logger", "users")])
    assert "'logger'" in text(plan, "hello")
    assert "'users'" in text(plan, "hello")


def test_a_conflict_stops_the_plugin_that_declares_it() -> None:
    plan = make_plan([plugin("new", conflicts=(parse_need("old<2"),)), plugin("old", version="1.9")])
    assert text(plan, "new") == (
        "plugin 'new' conflicts with old<2 and old 1.9 is enabled (from plugins/old): disable one of them"
    )
    assert plan.levels == (("old",),)


def test_a_conflict_with_another_version_or_a_disabled_plugin_is_none() -> None:
    conflict = (parse_need("old<2"),)
    assert not make_plan([plugin("new", conflicts=conflict), plugin("old", version="2.0")]).problems
    assert not make_plan([plugin("new", conflicts=conflict), plugin("old", enabled=False)]).problems


def test_each_plugin_of_a_cycle_is_told_the_whole_cycle_from_its_own_side() -> None:
    plan = make_plan([plugin("a", "b"), plugin("b", "c"), plugin("c", "a"), plugin("alone")])
    assert text(plan, "a").startswith("plugin 'a' needs itself: a → b → c → a;")
    assert text(plan, "c").startswith("plugin 'c' needs itself: c → a → b → c;")
    assert plan.levels == (("alone",),)


def test_a_plugin_that_needs_itself_is_a_cycle_of_one() -> None:
    assert text(make_plan([plugin("a", "a")]), "a").startswith("plugin 'a' needs itself: a → a;")


def test_those_that_need_a_bad_one_get_the_chain_down_to_the_cause() -> None:
    broken = Candidate("logger", fault="plugins/logger/plugin.yaml:3: version: expects a version")
    plan = make_plan([plugin("shop", "users"), plugin("users", "logger"), broken])
    assert text(plan, "shop") == (
        "plugin 'shop' needs users, which cannot start (shop → users → logger): "
        "plugins/logger/plugin.yaml:3: version: expects a version"
    )
    assert plan.problems["shop"].chain == ("shop", "users", "logger")


def test_a_plugin_of_unknown_version_satisfies_every_range() -> None:
    assert not make_plan([plugin("hello", "logger>=2"), Candidate("logger")]).problems


def test_needed_by_and_needing_follow_hard_edges_both_ways() -> None:
    plan = make_plan([plugin("a"), plugin("b", "a"), plugin("c", "b"), plugin("d", after=("a",))])
    assert plan.needed_by("c") == ("a", "b", "c")
    assert plan.needing("a") == ("c", "b", "a")


@st.composite
def installations(draw: st.DrawFn) -> list[Candidate]:
    names = [f"p{index}" for index in range(draw(st.integers(1, 9)))]
    anybody = st.sampled_from([*names, "absent"])
    return [
        plugin(
            name,
            *(draw(st.sets(anybody, max_size=3))),
            after=tuple(draw(st.sets(anybody, max_size=2))),
            enabled=draw(st.integers(0, 9)) > 0,
            fault=draw(st.sampled_from(["", "", "", "broken"])),
        )
        for name in names
    ]


@settings(deadline=None)
@given(installations())
def test_in_any_installation_every_dependency_comes_first_and_every_other_plugin_has_a_problem(
    candidates: list[Candidate],
) -> None:
    plan = make_plan(candidates)
    place = {name: index for index, level in enumerate(plan.levels) for name in level}
    for each in candidates:
        if not each.enabled and not each.fault:
            assert each.name not in place
            continue
        assert (each.name in place) != (each.name in plan.problems)
        if each.name in place:
            assert all(place[need.name] < place[each.name] for need in each.requires)
            assert all(place[other] < place[each.name] for other in plan.before[each.name])


@settings(deadline=None)
@given(installations())
def test_only_a_plugin_with_a_reason_is_kept_from_starting(candidates: list[Candidate]) -> None:
    plan = make_plan(candidates)
    bad = plan.problems.keys() | {each.name for each in candidates if not each.enabled} | {"absent"}
    for each in candidates:
        if each.name in plan.problems and not each.fault:
            assert any(need.name in bad for need in each.requires)
    for problem in plan.problems.values():
        assert problem.chain[-1] in problem.cause or problem.cause == "broken"


def test_what_keeps_plugins_from_starting_is_counted_by_its_kind() -> None:
    plan = make_plan(
        [
            plugin("a", "b"),
            plugin("b", "a"),
            plugin("self", "self"),
            plugin("enemy", conflicts=(parse_need("calm"),)),
            plugin("calm"),
            plugin("lost", "ghost"),
            plugin("follows", "lost"),
            plugin("both", "ghost", conflicts=(parse_need("calm"),)),
        ]
    )
    assert plan.unmet == {"lost", "both"}
    assert plan.conflicting == {"enemy", "both"}
    assert sorted(map(sorted, plan.cycles)) == [["a", "b"], ["self"]]
    assert plan.problems.keys() == {"a", "b", "self", "enemy", "lost", "follows", "both"}
