"""Memory: what passes take is foreseen, and refused where there is no room.

Some tests set ``passes._guess``, how long a pass is guessed to be from the last one, to see blocks
of times joined without long runs.
"""

import re
import tracemalloc

import numpy as np
import pytest
from conftest import random_game, random_policy

import fastincentive as fi
from fastincentive import _machine
from fastincentive.errors import InputError, MemoryLimitError
from fastincentive.problem import memory, pass_memory

#: Two backward passes over the same laws, kept or computed again.
SAME = 1e-13
#: An estimate may be off by this factor.
FACTOR = 1.5


def crowd(n, states, leader, discount=0.5, actions=2, models=2, counts=None):
    """n followers of a few models, or types; all start in one of the states."""
    rng = np.random.default_rng([n, states])
    shape = (states, actions, 3)
    sorts = [
        fi.TabularMDP.from_successors(
            rng.integers(states, size=shape),
            rng.dirichlet(np.ones(3), size=shape[:2]),
            rng.random(shape[:2]),
            discount=0.9,
        )
        for _ in range(models)
    ]
    mdps = [sorts[i % models].replace(initial=i % states) for i in range(n)]
    payments = fi.Payments.at_states([[i % states] for i in range(n)])
    followers = fi.Followers(mdps, counts)
    return fi.IncentiveProblem(followers, leader, payments, leader_discount=discount)


def uniform(problem):
    n, states, actions = problem.followers.shape
    return np.full((n, states, actions), 1.0 / actions)


def table(size):
    return fi.JointReward(np.random.default_rng(size).random((size, size)))


# The estimate

CASES = {
    "table": lambda: crowd(2, 70, table(70), 0.9),
    "doubled": lambda: crowd(2, 70, table(70), 0.9999),
    "count": lambda: crowd(200, 4, fi.CountReward(np.arange(4) % 2, np.arange(201.0)), 0.3),
    "additive": lambda: crowd(1000, 6, fi.AdditiveReward(np.arange(6) % 3), 0.5),
    "types": lambda: crowd(
        10, 4, fi.CountReward(np.arange(4) % 2, np.arange(501.0)), 0.5, counts=[50] * 10
    ),
    "few": lambda: crowd(40, 4, fi.AdditiveReward(np.arange(4) % 3), 0.2),
    "laws left out": lambda: crowd(20, 40, fi.AdditiveReward(np.arange(40) % 3), 0.9),
    "sum": lambda: crowd(
        50,
        8,
        fi.AdditiveReward(np.arange(8.0)) + fi.CountReward(np.arange(8) % 2, np.arange(51.0)),
        0.6,
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name != "few" else []) for name in CASES],
)
def test_the_estimate_is_near_what_a_gradient_takes(name, monkeypatch):
    if name == "laws left out":
        monkeypatch.setattr(pass_memory, "LAW_BYTES", 2**17)
    CASES[name]().leader_gradient(uniform(CASES[name]()))  # compiles
    problem = CASES[name]()
    policies = uniform(problem)
    for _ in range(2):  # in several blocks, and in one once the horizon is known
        estimate = problem.memory_estimate()
        assert problem.memory_estimate(policies) == estimate
        tracemalloc.start()
        problem.leader_gradient(policies)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak / FACTOR <= estimate.leader_pass <= FACTOR * peak, str(estimate)
        assert (estimate.product_space > 0) == (name == "doubled")
        if name != "doubled":
            assert estimate.horizon == problem.forward(policies, gradient=True).marginals.shape[0]


@pytest.mark.parametrize("discount", [0.5, 0.999, 1.0])
def test_horizons_of_random_choice_take_a_chain_for_each_model(discount):
    if discount < 1.0:
        problem = crowd(9, 6, fi.AdditiveReward(np.arange(6) % 3), discount, models=4)
    else:
        problem = fi.models.crowd(9, discount=0.9)
    every = problem.followers.available
    policies = every / every.sum(axis=2, keepdims=True)
    found, expected = problem.memory_estimate(), problem.memory_estimate(policies)
    assert (found.horizon, found.leader_pass) == (expected.horizon, expected.leader_pass)


def open_grid(size, n=1, **settings):
    """A square with a goal in the middle and a lesser goal at one side."""
    rows = [["."] * size for _ in range(size)]
    rows[0][0], rows[size // 2][size // 2], rows[size // 2][0] = "S", "G", "L"
    slips = [0.1 + 0.01 * i for i in range(n)]
    layout = "\n".join("".join(row) for row in rows)
    return fi.models.gridworld(layout, slip=slips, discount=0.95, **settings)


WHOLE_SOLVES = {
    "paper": fi.models.paper_gridworld,
    "two tables": lambda: crowd(2, 60, table(60), 0.9),
    "two that see all": lambda: fi.models.random_problem(2, n_states=80, n_payments=1, rng=0),
    "one on a grid": lambda: open_grid(20, leader_discount=0.95),
    "one of many states": lambda: open_grid(40, leader_discount=0.95),
    "one of most states": lambda: open_grid(100, leader_discount=0.95),
    "few of many states": lambda: crowd(3, 300, fi.AdditiveReward(np.arange(300) % 2.0)),
    "several payments": lambda: fi.models.random_problem(3, n_states=12, rng=0),
    "more payments": lambda: fi.models.random_problem(1, n_states=40, n_payments=4, rng=0),
    "sums over many": lambda: crowd(300, 20, fi.AdditiveReward(np.arange(20) % 3.0)),
    "counts of many": lambda: crowd(
        100, 8, fi.CountReward(np.arange(8) % 2, np.arange(101.0) ** 2)
    ),
}
#: Enough for what takes most memory to have come.
SHORT = {"several payments": fi.BilevelAscent(max_iter=20)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("name", WHOLE_SOLVES)
def test_a_solve_with_all_that_follows_takes_what_is_foreseen(name):
    method = SHORT.get(name)
    fi.solve(WHOLE_SOLVES[name](), method)  # compiles
    problem = WHOLE_SOLVES[name]()
    estimate = problem.memory_estimate()
    tracemalloc.start()
    fi.solve(problem, method)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    need = estimate.total - estimate.held
    assert 0.5 * need <= peak <= FACTOR * need, (peak, str(estimate))


@pytest.mark.slow
def test_the_estimate_is_near_what_a_solve_takes():
    problem = crowd(30, 40, fi.AdditiveReward(np.arange(40) % 3), 0.5)
    method = fi.BilevelAscent(max_iter=2)

    def run():
        with pytest.warns(fi.ConvergenceWarning):
            fi.solve(problem, method, initial_policies=uniform(problem), refine=False, polish=False)

    run()
    estimate = problem.memory_estimate()
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    need = estimate.total - estimate.held - estimate.search  # there is no search
    assert peak / FACTOR <= need <= FACTOR * peak


def test_what_a_problem_holds():
    problem = crowd(6, 50, fi.AdditiveReward(np.arange(50.0)), actions=3, models=2)
    estimate = problem.memory_estimate()
    entries = 2 * 50 * 3 * 3
    # Lists of every model, packed once more, and the pattern.
    assert 2 * 12 * entries < estimate.models < 2 * 12 * entries + 60_000
    rewards = 8 * 6 * 50 * 3
    assert 2 * rewards <= estimate.rewards < 2 * rewards + 20_000
    assert estimate.payments > 8 * 6 * 50 * 3
    assert estimate.held == estimate.models + estimate.rewards + estimate.payments
    # Counted once, however often it is met.
    again = problem.memory_estimate()
    assert again == estimate
    sizes = [value for name, value in vars(estimate).items() if name != "horizon"]
    assert estimate.total == sum(sizes)
    problem.followers.best_responses(problem.followers.rewards)
    assert problem.memory_estimate().models >= estimate.models


def test_the_horizon_of_policies_that_settle():
    grid = fi.models.paper_gridworld()
    short = grid.memory_estimate(fi.best_response_policies(grid, 2.0))
    assert short.horizon < grid.memory_estimate().horizon
    with pytest.raises(InputError, match="policies: expected shape"):
        grid.memory_estimate(np.ones(3))


def test_many_states_remember_responses():
    problem = crowd(3, 500, fi.AdditiveReward(np.arange(500) % 2))
    assert problem.memory_estimate().response > 0


def test_the_table_of_an_estimate():
    text = str(memory.MemoryEstimate(7, 2**31, *[2**20] * 4, 0, 3 * 2**20, *[0] * 5, 2**19, 0))
    assert [re.split("  +", line) for line in text.splitlines()] == [
        ["T = 7", "memory"],
        ["models", "2.00 GiB"],
        ["rewards", "1.00 MiB"],
        ["payments", "1.00 MiB"],
        ["policies", "1.00 MiB"],
        ["marginals", "1.00 MiB"],
        ["conditional", "3.00 MiB"],
        ["ascent", "0.50 MiB"],
        ["leader pass", "5.00 MiB"],
        ["total", "2.01 GiB"],
    ]


# The refusal


def test_a_pass_without_room_is_refused_before_it_runs(monkeypatch):
    problem = crowd(40, 6, fi.AdditiveReward(np.arange(6.0)), 0.9)
    policies = uniform(problem)
    expected = problem.leader_gradient(policies)
    estimate = problem.memory_estimate()
    monkeypatch.setattr(pass_memory, "UNGUARDED", 0)
    asked = []

    def room(size):
        monkeypatch.setattr(_machine, "available_memory", lambda: asked.append(1) or size)

    room(1.1 * estimate.leader_pass)
    np.testing.assert_array_equal(problem.leader_gradient(policies), expected)
    assert asked
    room(0.5 * estimate.leader_pass)
    message = (
        r"a leader pass over \d+ times or more \(n = 40 followers, L = 6 labels\) needs .* MiB"
    )
    # The discount says how long it will be: not a step is taken.
    monkeypatch.setattr(problem.passes, "_steps", None)
    for guess in (4, 64, estimate.horizon):
        problem.passes._guess = guess
        with pytest.raises(MemoryLimitError, match=message):
            problem.leader_gradient(policies)
    with pytest.raises(MemoryError, match="a smaller max_horizon"):
        fi.solve(problem)


def test_a_pass_that_turns_out_long_is_refused_on_its_way(monkeypatch):
    # At discount 1 nobody knows the horizon before.
    game = random_game(np.random.default_rng(4), 3, 6, 2, 1.0, closed=1)
    problem = game.problem(leader=fi.AdditiveReward([1.0] * 5 + [0.0]))
    horizon = problem.memory_estimate(game.policies).horizon
    monkeypatch.setattr(pass_memory, "UNGUARDED", 0)
    monkeypatch.setattr(_machine, "available_memory", lambda: 8.0 * 3 * 10 * (3 * 2 + 6))
    problem.passes._guess = 4
    assert horizon > 20
    with pytest.raises(MemoryLimitError, match=r"over (?!4 )\d+ times or more"):
        problem.leader_gradient(game.policies)


def test_small_tables_of_two_are_guarded_too(monkeypatch):
    problem = crowd(2, 6, table(6), 0.8)
    monkeypatch.setattr(pass_memory, "UNGUARDED", 0)
    monkeypatch.setattr(_machine, "available_memory", lambda: 100.0)
    with pytest.raises(MemoryLimitError, match="n = 2 followers, L = 6 labels"):
        problem.leader_value(uniform(problem))


def test_small_problems_never_look(monkeypatch):
    def look():
        raise AssertionError

    monkeypatch.setattr(_machine, "available_memory", look)
    problem = crowd(40, 6, fi.AdditiveReward(np.arange(6.0)), 0.9)
    problem.leader_gradient(uniform(problem))


def test_a_solve_without_room_can_be_refused():
    estimate = crowd(3, 6, fi.AdditiveReward(np.arange(6.0))).memory_estimate()
    need = estimate.total - estimate.held
    assert estimate.raise_if_too_large(need) is estimate
    assert estimate.raise_if_too_large() is estimate
    with pytest.raises(MemoryLimitError, match=r"a solve over \d+ times needs .*, more than the"):
        estimate.raise_if_too_large(need - 1.0)
    with pytest.raises(MemoryLimitError, match=r"this needs 3.00 GiB .* the 1.50 GiB available"):
        memory.check_memory("this", 3 * 2.0**30, 1.5 * 2**30)


# What there is


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine():
    assert _machine.available_memory() > 0.0


def test_meminfo(tmp_path):
    assert _machine.available_memory(tmp_path) > 0.0  # sysconf, where there is any
    write(tmp_path, "proc/meminfo", "MemTotal:  9 kB\nMemAvailable:   3000 kB\n")
    assert _machine.available_memory(tmp_path) == 3000 * 1024


def test_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert _machine.available_memory(tmp_path) == np.inf


@pytest.mark.parametrize("group", ["/", "/a", "/a/b"])
def test_cgroups_of_version_2(tmp_path, group):
    write(tmp_path, "proc/meminfo", "MemAvailable: 900 kB\n")
    write(tmp_path, "proc/self/cgroup", f"0::{group}\n")
    top = "sys/fs/cgroup"
    write(tmp_path, f"{top}/a/memory.max", "500000\n")
    write(tmp_path, f"{top}/a/memory.current", "400000\n")
    write(tmp_path, f"{top}/a/memory.stat", "anon 1\ninactive_file 150000\n")
    write(tmp_path, f"{top}/a/b/memory.max", "max\n")
    write(tmp_path, f"{top}/a/b/memory.current", "4\n")
    assert _machine.available_memory(tmp_path) == (250_000 if "a" in group else 900 * 1024)
    write(tmp_path, f"{top}/a/memory.current", "800000\n")
    assert _machine.available_memory(tmp_path) == (0 if "a" in group else 900 * 1024)


def test_cgroups_of_version_1(tmp_path):
    write(tmp_path, "proc/meminfo", "MemAvailable: 900 kB\n")
    write(tmp_path, "proc/self/cgroup", "5:devices:/x\n4:cpu,memory:/c/d\n0::/\n")
    top = "sys/fs/cgroup/memory"
    # In a container the path is that of the host, and the limit is found at the top.
    write(tmp_path, f"{top}/memory.limit_in_bytes", "300000\n")
    write(tmp_path, f"{top}/memory.usage_in_bytes", "100000\n")
    assert _machine.available_memory(tmp_path) == 200_000
    write(tmp_path, f"{top}/memory.stat", "inactive_file 1\ntotal_inactive_file 50000\n")
    assert _machine.available_memory(tmp_path) == 250_000


# Laws that are not kept


@pytest.mark.parametrize("guess", [3, 17, 64, 90])
@pytest.mark.parametrize("most", [0, 20, 40, 70, 10**6])
def test_laws_are_kept_for_all_times_or_none(guess, most, monkeypatch):
    labels = np.arange(7) % 2
    game = random_game(np.random.default_rng(0), 3, 7, 2, 0.8)
    leader = fi.CountReward(labels, np.arange(4.0) ** 2)
    problem = game.problem(leader=leader)
    policies = random_policy(np.random.default_rng(1), game.available)
    expected = problem.leader_gradient(policies)
    monkeypatch.setattr(pass_memory, "LAW_BYTES", most * 3 * 7 * 8)
    problem.passes._guess = guess
    found = problem.forward(policies, gradient=True)
    horizon = found.marginals.shape[0]
    assert 90 < horizon < 200
    assert found.laws.shape[0] in ((0, horizon) if horizon <= most else (0,))
    problem.passes._guess = guess
    assert np.abs(problem.leader_gradient(policies) - expected).max() <= SAME * 100.0


def test_large_solves_are_refused_before_they_begin(monkeypatch):
    problem = crowd(40, 4, fi.AdditiveReward(np.arange(4) % 3), 0.2)
    monkeypatch.setattr("fastincentive._machine.available_memory", lambda: 1e4)
    fi.solve(
        problem, fi.BilevelAscent(max_iter=1), refine=False, callback=stop
    )  # small: not looked
    monkeypatch.setattr("fastincentive.solver.request.UNGUARDED", 1.0)
    with pytest.raises(fi.MemoryLimitError, match=r"a solve over \d+ times needs .* MiB of memory"):
        fi.solve(problem)


def stop(report):
    raise StopIteration
